//! Redis or Valkey: one server, one behind Sentinels, or a cluster.

mod connections;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind,
    ToRedisArgs, Value,
};
use tokio::task::JoinSet;

pub use self::connections::is_refused_for_now;
use self::connections::{Connections, Way};
use super::config;
use super::preflight::Findings;

/// Timeout of a command. Scripts take some milliseconds; a server that is silent for longer hangs.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a command may block on the server, on a connection for that: [`Redis::for_blocking`].
pub const BLOCK_MAX: Duration = Duration::from_secs(1);

/// A shared connection that reconnects by itself; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    connections: Arc<Connections>,
    /// Commands after which all fail, as if this process had ended.
    #[cfg(test)]
    fuse: Option<Arc<std::sync::atomic::AtomicI64>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects to a server, and to the other nodes of its cluster. The verdicts about each server, now and at each reconnect, are
    /// recorded in `findings`.
    ///
    /// # Errors
    /// If a URL is invalid, the server does not answer, or its settings would lose data.
    pub async fn connect(config: config::Redis, findings: Findings) -> RedisResult<Self> {
        Ok(Self {
            connections: Connections::open(config, findings, ANSWER).await?,
            #[cfg(test)]
            fuse: None,
        })
    }

    /// A handle with connections of its own, for one command at a time that blocks up to [`BLOCK_MAX`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn for_blocking(&self) -> RedisResult<Self> {
        let (config, findings) = self.connections.settings();
        let answer = BLOCK_MAX + ANSWER;
        Ok(Self {
            connections: Connections::open(config, findings, answer).await?,
            #[cfg(test)]
            fuse: self.fuse.clone(),
        })
    }

    /// # Errors
    /// If there is no answer, or one of another type.
    pub async fn ask<T>(&self, command: Cmd) -> RedisResult<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let mut answers = self.ask_all(vec![command]).await?;
        answers.pop().ok_or_else(no_answer)
    }

    /// Sends commands that do not depend on one another in a pipeline; the answers in the order of the commands.
    ///
    /// # Errors
    /// If one has no answer, or one of another type. Others may have been executed.
    pub async fn ask_all<T>(&self, commands: Vec<Cmd>) -> RedisResult<Vec<T>>
    where
        T: FromRedisValue + Send + 'static,
    {
        #[cfg(test)]
        if let Some(left) = self.last_commands(commands.len()) {
            self.send(commands[..left].to_vec()).await?;
            // A kind that is never retried.
            return Err((ErrorKind::UnexpectedReturnType, "the process has ended").into());
        }
        let answers = self.send(commands).await?;
        let typed = answers
            .into_iter()
            .map(|answer| Ok(redis::from_redis_value(answer?)?));
        typed.collect()
    }

    async fn send(&self, commands: Vec<Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let connection = self.connections.current().await?;
        let answers = connection.way.send(commands).await;
        match &answers {
            Ok(answers) => {
                for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                    self.connections.replace_if_stale(&connection, error);
                }
            }
            Err(error) => self.connections.replace_if_stale(&connection, error),
        }
        answers
    }

    /// Runs a script, which is atomic.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); or if the script fails.
    pub async fn run<T, A>(&self, script: &Script, arguments: &[A]) -> RedisResult<T>
    where
        T: FromRedisValue + Send + 'static,
        A: ToRedisArgs + Sync,
    {
        let run = |name, by: &str| {
            let (mut run, keys) = (redis::cmd(name), &script.keys);
            run.arg(by).arg(keys.len()).arg(keys).arg(arguments);
            run
        };
        match self.ask(run("EVALSHA", &script.hash)).await {
            // A server that was restarted or promoted does not know the script. It does afterwards.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.ask(run("EVAL", script.code)).await
            }
            answer => answer,
        }
    }

    /// A handle that fails after so many commands.
    #[cfg(test)]
    pub(crate) fn ending_after(self, commands: i64) -> Self {
        let fuse = Some(std::sync::Arc::new(commands.into()));
        Self { fuse, ..self }
    }

    /// How many of the next commands are still sent.
    #[cfg(test)]
    fn last_commands(&self, commands: usize) -> Option<usize> {
        let wanted = i64::try_from(commands).unwrap_or(i64::MAX);
        let fuse = self.fuse.as_ref()?;
        let before = fuse.fetch_sub(wanted, std::sync::atomic::Ordering::Relaxed);
        (before < wanted).then(|| usize::try_from(before).unwrap_or(0))
    }
}

/// A Lua script, which a server knows by its hash.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    hash: String,
    keys: Vec<String>,
}

impl Script {
    /// All keys share a hash tag.
    pub fn new(code: &'static str, keys: impl Into<Vec<String>>) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
            keys: keys.into(),
        }
    }
}

fn no_answer() -> RedisError {
    (
        ErrorKind::UnexpectedReturnType,
        "a command without an answer",
    )
        .into()
}

impl Way {
    async fn send(&self, commands: Vec<Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::One(one) => {
                let mut together = Pipeline::with_capacity(commands.len());
                for command in commands {
                    together.add_command(command);
                }
                together.ignore_errors().query_async(&mut one.clone()).await
            }
            // A pipeline goes to one node.
            Self::Cluster(cluster) => {
                let mut asked = JoinSet::new();
                for (place, command) in commands.into_iter().enumerate() {
                    let mut cluster = cluster.clone();
                    asked.spawn(async move { (place, command.query_async(&mut cluster).await) });
                }
                let mut answers = asked.join_all().await;
                answers.sort_by_key(|(place, _)| *place);
                Ok(answers.into_iter().map(|(_, answer)| answer).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
