//! What a Redis server says of itself when it is reached, and whether what is kept there would stay.

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tracing::warn;

/// What `INFO` says.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Nothing where the user may not ask.
    info: Option<String>,
}

impl Server {
    /// Asks.
    ///
    /// # Errors
    /// If there is no answer.
    pub(super) async fn of(connection: &mut impl ConnectionLike) -> RedisResult<Self> {
        match redis::cmd("INFO").query_async(connection).await {
            Ok(info) => Ok(Self { info: Some(info) }),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it may be used: it is a primary, and forgets nothing to make room. What cannot be looked at, and what a
    /// restart would lose, is logged.
    ///
    /// # Errors
    /// With the server's setting, and what it must be.
    pub(super) fn check(&self) -> RedisResult<()> {
        if self.info.is_none() {
            warn!(
                "Redis does not let this user ask INFO: whether it is a primary, evicts keys (maxmemory-policy), or keeps an append-only file could not be checked"
            );
            return Ok(());
        }
        if self.field("role") == Some("slave") {
            return Err(refused(
                "it is a replica: name its primary, or its Sentinels (`redis.sentinels`)".into(),
            ));
        }
        if let Some(policy) = self
            .field("maxmemory_policy")
            .filter(|&policy| policy != "noeviction")
        {
            return Err(refused(format!(
                "its maxmemory-policy is {policy}, which deletes orders to make room; it must be noeviction"
            )));
        }
        if self.field("aof_enabled") == Some("0") {
            warn!(
                "Redis keeps no append-only file: a restart of it loses what came since its last snapshot (set `appendonly yes`)"
            );
        }
        Ok(())
    }

    /// Whether it is one of a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.field("cluster_enabled") == Some("1")
    }

    /// Its process.
    pub(super) fn run_id(&self) -> &str {
        self.field("run_id").unwrap_or("unknown")
    }

    /// Its version.
    pub(super) fn version(&self) -> &str {
        self.field("redis_version").unwrap_or("unknown")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.info.as_deref().unwrap_or_default().lines();
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        fields
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }
}

fn refused(detail: String) -> RedisError {
    (
        ErrorKind::InvalidClientConfig,
        "this Redis cannot be used",
        detail,
    )
        .into()
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
    fn a_server_that_would_lose_what_is_kept_is_refused_and_says_which_setting_it_is() {
        for (info, named) in [
            (
                "role:master\nmaxmemory_policy:noeviction\naof_enabled:1\n",
                None,
            ),
            (
                "role:master\nmaxmemory_policy:noeviction\naof_enabled:0\n",
                None,
            ),
            (
                "# Replication\nrole:slave\nmaster_link_status:up\n",
                Some("is a replica"),
            ),
            (
                "role:master\nmaxmemory_policy:allkeys-lru\n",
                Some("allkeys-lru"),
            ),
            (
                "role:master\nmaxmemory_policy:volatile-ttl\n",
                Some("volatile-ttl"),
            ),
            // A server of another kind, which does not tell.
            ("redis_version:7.0.15\n", None),
        ] {
            let checked = server(info).check().map_err(|error| error.to_string());
            match (checked, named) {
                (Ok(()), None) => {}
                (Err(said), Some(named)) => assert!(said.contains(named), "{said}"),
                (checked, _) => panic!("{info}: {checked:?}"),
            }
        }
        Server::default().check().unwrap();
    }

    #[test]
    fn a_server_tells_who_it_is() {
        let server =
            server("# Server\nredis_version:7.0.15\nrun_id:4f2a\n# Cluster\ncluster_enabled:1\n");
        assert_eq!(
            (server.run_id(), server.version(), server.is_cluster()),
            ("4f2a", "7.0.15", true)
        );
        let nobody = Server::default();
        assert_eq!((nobody.run_id(), nobody.is_cluster()), ("unknown", false));
    }
}
