//! Checks of a Redis server when it is connected: would it lose data?

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisResult, ServerErrorKind};

use crate::storage::preflight::{Outcome, Verdict};

/// What is checked of a server whenever a connection is made.
pub(super) const CHECKS: [&str; 4] = ["connection", "role", "maxmemory-policy", "append-only file"];

#[derive(Debug, Default)]
pub(super) struct Server {
    /// None if the ACL forbids `INFO`.
    info: Option<String>,
}

impl Server {
    /// # Errors
    /// If the server does not answer.
    pub(super) async fn of(connection: &mut impl ConnectionLike) -> RedisResult<Self> {
        match redis::cmd("INFO").query_async(connection).await {
            Ok(info) => Ok(Self { info: Some(info) }),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// The verdicts of [`CHECKS`], in their order.
    pub(super) fn verdicts(&self) -> [Verdict; 4] {
        let Some(version) = self.field("redis_version") else {
            let unknown = || {
                Verdict::new(
                    Outcome::Unchecked,
                    "the ACL forbids INFO, or its answer lacks the role",
                )
            };
            return [Verdict::passed("answers"), unknown(), unknown(), unknown()];
        };
        let kind = if self.is_cluster() { ", a cluster" } else { "" };
        let role = match self.field("role") {
            Some("slave") => Verdict::failed(
                "it is a replica: name its primary, or its Sentinels (`redis.sentinels`)",
            ),
            _ => Verdict::passed("it is a primary"),
        };
        let policy = match self.field("maxmemory_policy") {
            None => Verdict::new(Outcome::Unchecked, "the server does not say"),
            Some("noeviction") => Verdict::passed("noeviction"),
            Some(policy) => Verdict::failed(format!(
                "it is {policy}, which deletes orders to make room; it must be noeviction"
            )),
        };
        let file = match self.field("aof_enabled") {
            None => Verdict::new(Outcome::Unchecked, "the server does not say"),
            Some("0") => Verdict::new(
                Outcome::Warning,
                "off: a restart of Redis loses what was written since its last snapshot (set `appendonly yes`)",
            ),
            Some(_) => Verdict::passed("on"),
        };
        let answers = Verdict::passed(format!("Redis {version}{kind}"));
        [answers, role, policy, file]
    }

    /// Whether it is one of a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.field("cluster_enabled") == Some("1")
    }

    /// The id of its process.
    pub(super) fn run_id(&self) -> &str {
        self.field("run_id").unwrap_or("unknown")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.info.as_deref().unwrap_or_default().lines();
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        fields
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }
}

/// Why a server is not used, if a verdict says so.
///
/// # Errors
/// With the setting, and what it must be.
pub(super) fn judge(verdicts: &[Verdict]) -> RedisResult<()> {
    let checks = CHECKS.iter().zip(verdicts);
    let mut failed = checks.filter(|(_, verdict)| verdict.outcome == Outcome::Failed);
    match failed.next() {
        None => Ok(()),
        Some((check, verdict)) => Err((
            ErrorKind::InvalidClientConfig,
            "this Redis cannot be used",
            format!("{check}: {}", verdict.detail),
        )
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(info: &str) -> Server {
        Server {
            info: Some(info.replace('\n', "\r\n")),
        }
    }

    #[test]
    fn a_server_that_would_lose_what_is_stored_is_refused_and_says_which_setting_it_is() {
        use Outcome::{Failed, Passed, Unchecked, Warning};

        let info = |lines: &str| format!("redis_version:7.0.15\n{lines}");
        for (info, expected, named) in [
            (
                info("role:master\nmaxmemory_policy:noeviction\naof_enabled:1\n"),
                [Passed, Passed, Passed, Passed],
                None,
            ),
            (
                info("role:master\nmaxmemory_policy:noeviction\naof_enabled:0\n"),
                [Passed, Passed, Passed, Warning],
                None,
            ),
            (
                info("# Replication\nrole:slave\nmaxmemory_policy:noeviction\n"),
                [Passed, Failed, Passed, Unchecked],
                Some("role: it is a replica"),
            ),
            (
                info("role:master\nmaxmemory_policy:allkeys-lru\n"),
                [Passed, Passed, Failed, Unchecked],
                Some("maxmemory-policy: it is allkeys-lru"),
            ),
            // Another server, or the ACL forbids the command.
            (
                String::new(),
                [Passed, Unchecked, Unchecked, Unchecked],
                None,
            ),
        ] {
            let verdicts = server(&info).verdicts();
            assert_eq!(verdicts.clone().map(|verdict| verdict.outcome), expected);
            match (judge(&verdicts).map_err(|error| error.to_string()), named) {
                (Ok(()), None) => {}
                (Err(said), Some(named)) => assert!(said.contains(named), "{said}"),
                (judged, _) => panic!("{info}: {judged:?}"),
            }
        }
        let [_, role, ..] = Server::default().verdicts();
        assert_eq!(role.outcome, Unchecked);
    }

    #[test]
    fn a_server_tells_who_it_is() {
        let server =
            server("# Server\nredis_version:7.0.15\nrun_id:4f2a\n# Cluster\ncluster_enabled:1\n");
        assert_eq!((server.run_id(), server.is_cluster()), ("4f2a", true));
        let [connection, ..] = server.verdicts();
        assert_eq!(connection, Verdict::passed("Redis 7.0.15, a cluster"));
        let nobody = Server::default();
        assert_eq!((nobody.run_id(), nobody.is_cluster()), ("unknown", false));
    }
}
