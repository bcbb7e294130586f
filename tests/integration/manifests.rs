//! The files for containers and Kubernetes agree with the program's configuration and with nginx's. They are read as text:
//! nothing here knows YAML.

use std::collections::BTreeSet;
use std::path::Path;

use crate::shop::{odyssey, variable};

/// What the images' builds and the compose file itself use.
const OTHERS: [&str; 2] = ["ODYSSEY_COMMIT", "ODYSSEY_LINE_FSYNC"];

/// A file of the repository.
pub(crate) fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words that follow this one.
fn after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let ends = |rest: &'a str| rest.split([' ', ',', ';', '}', '\n']).next();
    text.split(before).skip(1).filter_map(ends).collect()
}

/// The variables of all keys.
fn known() -> BTreeSet<String> {
    let manual = odyssey().args(["config", "--defaults"]).output().unwrap();
    let manual = String::from_utf8(manual.stdout).unwrap();
    let mut section = "";
    let mut known = BTreeSet::new();
    for line in manual.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ") {
            let key = [section, key].join(".");
            known.insert(variable(key.trim_start_matches('.')));
        }
    }
    known
}

#[test]
fn every_variable_is_that_of_a_key() {
    let known = known();
    assert!(known.contains("ODYSSEY_ORDERS__LEASE"), "{known:?}");
    for path in [
        "docker-compose.yml",
        "Dockerfile",
        "packaging/kubernetes/odyssey.yml",
        "packaging/kubernetes/README.md",
        "packaging/systemd/odyssey.service",
        "docs/scaling.md",
        "nginx/README.md",
    ] {
        let text = file(path);
        let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
        for (at, _) in text.match_indices("ODYSSEY_") {
            let name = text[at..].split(|c| !is_name(c)).next().unwrap();
            let is_known = known.contains(name) || OTHERS.contains(&name);
            assert!(is_known, "{path}: {name}");
        }
    }
}

#[test]
fn the_configuration_of_kubernetes_is_valid() {
    let manifest = file("packaging/kubernetes/odyssey.yml");
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("url");
    std::fs::write(&url, "redis://:secret@redis:6379").unwrap();
    let mut command = odyssey();
    let mut count = 0;
    for line in manifest.lines().map(str::trim) {
        if let Some((name, value)) = line.split_once(": ")
            && name.starts_with("ODYSSEY_")
        {
            count += 1;
            command.env(name, value);
        }
    }
    assert!(count > 5, "{count} variables");
    command.env("ODYSSEY_REDIS__URL_FILE", &url).arg("config");
    let printed = command.output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
}

#[test]
fn names_and_ports_of_kubernetes_agree_with_those_of_the_servers_and_of_nginx() {
    let [servers, nginx, policies] = ["odyssey.yml", "nginx.yml", "network-policies.yml"]
        .map(|name| file(&format!("packaging/kubernetes/{name}")));
    let site = |name: &str| file(&format!("packaging/kubernetes/site/{name}.conf"));
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();

    // The servers' listeners, from their configuration to nginx's groups.
    let listeners = ["CUSTOMERS", "STAFF"]
        .map(|listener| port(after(&servers, &format!("ODYSSEY_{listener}__LISTEN: "))[0]));
    let named = [("customers", &listeners[0]), ("staff", &listeners[1])];
    let upstreams = site("upstreams");
    for (name, port) in named {
        assert_eq!(
            after(&servers, &format!("name: {name}, containerPort: ")),
            [&**port]
        );
        assert_eq!(
            after(&servers, &format!("name: {name}, port: ")),
            [&**port; 3]
        );
        let (_, group) = upstreams
            .split_once(&format!("upstream {name} {{"))
            .unwrap();
        let (group, _) = group.split_once("\n}").unwrap();
        let expected = ["odyssey-0", "odyssey-1"].map(|name| format!("{name}:{port}"));
        assert_eq!(after(group, " server "), expected);
        let (_, owner) = upstreams
            .split_once(&format!("upstream {name}_owner {{"))
            .unwrap();
        let (owner, _) = owner.split_once("\n}").unwrap();
        assert_eq!(after(owner, " server "), [&*expected[0]]);
    }
    // A Service for each pod of the StatefulSet, by its name.
    for pod in ["odyssey-0", "odyssey-1"] {
        assert!(servers.contains(&format!("\n  name: {pod}\n")), "{pod}");
    }
    assert_eq!(
        after(&servers, "statefulset.kubernetes.io/pod-name: "),
        ["odyssey-0", "odyssey-1"]
    );
    assert_eq!(after(&servers, "replicas: "), ["2"]);
    assert_eq!(
        after(&servers, "prometheus.io/port: "),
        [format!("\"{}\"", listeners[1])]
    );

    // nginx's own listeners, and who may reach which.
    let own = ["customers", "staff"].map(|name| {
        let listens = after(&nginx, &format!("name: {name}, containerPort: "))[0].to_owned();
        assert_eq!(
            after(&site(&format!("listen-{name}")), "\nlisten "),
            [&*listens]
        );
        assert_eq!(after(&nginx, &format!("name: {name}, port: ")).len(), 1);
        assert_eq!(
            after(&nginx, "targetPort: ")
                .iter()
                .filter(|it| **it == name)
                .count(),
            1
        );
        listens
    });
    let (to_servers, to_nginx) = policies.split_once("\n---\n").unwrap();
    let (ingress, egress) = to_servers.split_once("\n  egress:").unwrap();
    let reachable: BTreeSet<_> = after(ingress, "port: ").into_iter().collect();
    assert_eq!(reachable, listeners.iter().map(|port| &**port).collect());
    assert_eq!(after(to_nginx, "port: "), own);
    assert!(after(egress, "port: ").contains(&"6379"));
}

#[test]
fn volumes_of_kubernetes_are_mounted_by_their_names_and_labels_select_what_has_them() {
    let [servers, nginx, policies] = ["odyssey.yml", "nginx.yml", "network-policies.yml"]
        .map(|name| file(&format!("packaging/kubernetes/{name}")));
    for manifest in [&servers, &nginx] {
        let mounted = manifest.lines().filter(|line| line.contains("mountPath: "));
        for line in mounted {
            let name = after(line, "name: ")[0];
            assert!(
                manifest.contains(&format!("- name: {name}\n"))
                    || manifest.contains(&format!("        name: {name}\n")),
                "{name}"
            );
        }
    }
    for label in after(&policies, "app.kubernetes.io/name: ") {
        let labelled = format!("labels: {{ app.kubernetes.io/name: {label} }}");
        assert!(
            servers.contains(&labelled) || nginx.contains(&labelled),
            "{label}"
        );
    }
}
