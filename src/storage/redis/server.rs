//! What a Redis server says of itself when it is connected to, and whether it may be used.

use std::collections::BTreeSet;

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisResult, ServerErrorKind, Value};

use crate::storage::preflight::{Outcome, Verdict};

/// What is checked of a server whenever a connection is made.
pub(super) const CHECKS: [&str; 4] = ["connection", "role", "maxmemory-policy", "append-only file"];

/// A Redis server's description of itself.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// `INFO`; nothing where the user may not ask.
    info: Option<String>,
    /// The first word of `ROLE`, where `INFO` is forbidden.
    role: Option<String>,
    /// `CLUSTER NODES`, of a node of a cluster.
    nodes: Option<String>,
}

impl Server {
    /// # Errors
    /// If the server does not answer.
    pub(super) async fn of(connection: &mut impl ConnectionLike) -> RedisResult<Self> {
        let mut server = Self {
            info: permitted(redis::cmd("INFO").query_async(connection).await)?,
            ..Self::default()
        };
        if server.info.is_none() {
            let role: Option<Value> = permitted(redis::cmd("ROLE").query_async(connection).await)?;
            server.role = role.and_then(|role| match role {
                Value::Array(parts) => redis::from_redis_value(parts.into_iter().next()?).ok(),
                _ => None,
            });
        }
        if server.is_cluster() {
            let mut nodes = redis::cmd("CLUSTER");
            server.nodes = permitted(nodes.arg("NODES").query_async(connection).await)?;
        }
        Ok(server)
    }

    /// The verdicts of [`CHECKS`], in their order; the first alone if it failed.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        if self.field("loading").is_some_and(|loading| loading != "0") {
            return vec![Verdict::failed("it is loading its data")];
        }
        if self.nodes.is_some() && self.primaries().is_empty() {
            // Such as a node that was removed, or has lost its disk.
            return vec![Verdict::failed(
                "it is a cluster node, but knows no node with slots",
            )];
        }
        let unknown = || Verdict::new(Outcome::Unchecked, "Redis does not allow this user to ask");
        let connection = match self.field("redis_version") {
            None => Verdict::passed("answers"),
            Some(version) if self.is_cluster() => {
                Verdict::passed(format!("Redis {version}, a cluster"))
            }
            Some(version) => Verdict::passed(format!("Redis {version}")),
        };
        let role = match self.field("role").or(self.role.as_deref()) {
            None => unknown(),
            Some("slave") if self.is_cluster() => {
                Verdict::passed("it is a replica of a cluster, whose primaries are used")
            }
            Some("slave") => Verdict::failed(
                "it is a replica: name its primary, or its Sentinels (`redis.sentinels`)",
            ),
            Some(_) => Verdict::passed("it is a primary"),
        };
        let policy = match self.field("maxmemory_policy") {
            None => unknown(),
            Some("noeviction") => Verdict::passed("noeviction"),
            Some(policy) => Verdict::failed(format!(
                "it is {policy}, which deletes orders to make room; it must be noeviction"
            )),
        };
        let file = match self.field("aof_enabled") {
            None => unknown(),
            Some("0") => Verdict::new(
                Outcome::Warning,
                "off: a restart of Redis loses what was written since its last snapshot (set `appendonly yes`)",
            ),
            Some(_) => Verdict::passed("on"),
        };
        vec![connection, role, policy, file]
    }

    /// Addresses of all nodes of its cluster.
    pub(super) fn nodes(&self) -> BTreeSet<String> {
        let nodes = self.node_lines().filter_map(address_of_node);
        nodes.collect()
    }

    /// Addresses of the primaries that have slots and are not suspected to be down.
    pub(super) fn primaries(&self) -> BTreeSet<String> {
        let primaries = self.node_lines().filter(|line| {
            let mut fields = line.split(' ').skip(2);
            let flags = fields.next().unwrap_or_default();
            // After the flags: primary, ping, pong, epoch, link.
            let has_slots = fields.nth(5).is_some_and(|slots| !slots.is_empty());
            flags.contains("master") && !flags.contains("fail") && has_slots
        });
        primaries.filter_map(address_of_node).collect()
    }

    fn node_lines(&self) -> impl Iterator<Item = &str> {
        self.nodes.as_deref().unwrap_or_default().lines()
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

/// The answer, or nothing if the user may not ask.
fn permitted<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The address of a line of `CLUSTER NODES`: `id host:port@bus[,name] flags ...`.
fn address_of_node(line: &str) -> Option<String> {
    let mut fields = line.split(' ');
    let address = fields.nth(1)?.split('@').next()?;
    let flags = fields.next()?;
    let is_known = !address.starts_with(':') && !flags.contains("noaddr");
    is_known.then(|| address.to_owned())
}

/// Replaces each verdict by another node's that is worse.
pub(super) fn combine(verdicts: &mut [Verdict], address: &str, of_other: Vec<Verdict>) {
    for (verdict, other) in verdicts.iter_mut().zip(of_other) {
        if other.outcome > verdict.outcome {
            *verdict = Verdict::new(other.outcome, format!("{address}: {}", other.detail));
        }
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
            ..Server::default()
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
            let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
            assert_eq!(outcomes, expected);
            match (judge(&verdicts).map_err(|error| error.to_string()), named) {
                (Ok(()), None) => {}
                (Err(said), Some(named)) => assert!(said.contains(named), "{said}"),
                (judged, _) => panic!("{info}: {judged:?}"),
            }
        }
        let of_role = |role: &str| Server {
            role: Some(role.to_owned()),
            ..Server::default()
        };
        assert_eq!(of_role("master").verdicts()[1].outcome, Passed);
        assert_eq!(of_role("slave").verdicts()[1].outcome, Failed);
        // What it says while it loads is not what it says afterwards.
        let loading = server("redis_version:7.0.15\nloading:1\naof_enabled:0\n");
        assert_eq!(
            loading.verdicts(),
            [Verdict::failed("it is loading its data")]
        );
    }

    #[test]
    fn a_node_of_a_cluster_is_used_whatever_its_role_unless_it_was_removed() {
        let info = "redis_version:7.0.15\nrole:slave\nmaxmemory_policy:noeviction\naof_enabled:1\ncluster_enabled:1\n";
        let node = |nodes: &str| Server {
            nodes: Some(nodes.to_owned()),
            ..server(info)
        };
        let of_cluster = node(
            "a 10.0.0.1:7000@17000 myself,slave b 0 0 3 connected\n\
             b 10.0.0.2:7000@17000 master - 0 1 3 connected 0-8191\n\
             c 10.0.0.3:7000@17000 master,fail? - 0 1 3 connected 8192-16383\n\
             d :0@0 master,noaddr - 0 1 3 disconnected\n",
        );
        judge(&of_cluster.verdicts()).unwrap();
        let addresses = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
        assert_eq!(addresses(of_cluster.primaries()), ["10.0.0.2:7000"]);
        let all = ["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"];
        assert_eq!(addresses(of_cluster.nodes()), all);
        let removed = node("a 10.0.0.1:7000@17000 myself,master - 0 0 0 connected\n");
        assert!(judge(&removed.verdicts()).is_err());
    }

    #[test]
    fn another_node_that_evicts_is_named_by_its_address() {
        let mut verdicts =
            server("redis_version:7\nrole:master\nmaxmemory_policy:noeviction\naof_enabled:1\n")
                .verdicts();
        let other =
            server("redis_version:7\nrole:master\nmaxmemory_policy:allkeys-lru\naof_enabled:1\n");
        combine(&mut verdicts, "10.0.0.2:7000", other.verdicts());
        let said = judge(&verdicts).unwrap_err().to_string();
        assert!(said.contains("10.0.0.2:7000: it is allkeys-lru"), "{said}");
    }

    #[test]
    fn a_server_tells_who_it_is() {
        let server =
            server("# Server\nredis_version:7.0.15\nrun_id:4f2a\n# Cluster\ncluster_enabled:1\n");
        assert_eq!((server.run_id(), server.is_cluster()), ("4f2a", true));
        assert_eq!(
            server.verdicts()[0],
            Verdict::passed("Redis 7.0.15, a cluster")
        );
        let nobody = Server::default();
        assert_eq!((nobody.run_id(), nobody.is_cluster()), ("unknown", false));
    }
}
