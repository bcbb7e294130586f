//! nginx in front of several servers: which server a path leads to, and how often a request arrives. The servers are stubs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::{Ask, Door, delete, get, order, post, put};
use crate::manifests::file;
use crate::nginx::{Nginx, variant_of};
use crate::shop::odyssey;

/// As often as nginx sends a request of which HTTP says that it may be repeated: to two servers in each of nine rounds. Of
/// others the first round ends with the first server.
const IDEMPOTENT_MOST: usize = 18;
const MOST: usize = IDEMPOTENT_MOST - 1;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Answers,
    /// It closes the connection, as a server that is lost.
    Closes,
}

/// A server that reads requests, and what it has read: heads, in small letters.
struct Stub {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Stub {
    async fn that(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let read = Arc::clone(&heads);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(head) = head(&mut stream).await else {
                    continue;
                };
                read.lock().unwrap().push(head);
                if then == Then::Answers {
                    let answer =
                        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        Self {
            address,
            heads,
            _serving: serving,
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

/// The head of a request without a body.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(bytes).unwrap().to_ascii_lowercase())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|field| field.0 == name).map(|field| field.1)
}

/// Stubs, and nginx before them; they have one listener each.
async fn behind_nginx(then: &[Then]) -> (Nginx, Vec<Stub>) {
    let mut stubs = Vec::new();
    for &then in then {
        stubs.push(Stub::that(then).await);
    }
    let addresses: Vec<_> = stubs.iter().map(|stub| stub.address.to_string()).collect();
    let list = addresses.join(",");
    let nginx = Nginx::start(variant_of(&list, &list, &[])).await;
    (nginx, stubs)
}

/// What this listener is asked, by its description: each path, one of its methods, and the desk.
fn described(listener: &str) -> Vec<(String, Method, String)> {
    let printed = odyssey()
        .args(["openapi", "--listener", listener])
        .output()
        .unwrap();
    let api: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let paths = api["paths"].as_object().unwrap().iter();
    let asked = paths.map(|(path, operations)| {
        let (method, operation) = operations.as_object().unwrap().iter().next().unwrap();
        let method = method.to_uppercase().parse().unwrap();
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        let path = path.replace(['{', '}'], "");
        (path, method, tag.to_owned())
    });
    asked.collect()
}

#[tokio::test]
async fn the_paths_of_desks_that_store_files_lead_to_the_owner_and_all_others_to_any_server() {
    let (nginx, stubs) = behind_nginx(&[Then::Answers, Then::Answers]).await;
    // nginx sends an address to one of the two.
    let mut from = (1..).map(|last| format!("127.0.7.{last}"));
    let from = loop {
        let from = from.next().unwrap();
        let mut connection = nginx.customers.connect_from(&from).await;
        connection.ask(&order()).await.expect(200);
        if !stubs[1].take().is_empty() {
            break from;
        }
    };
    for (listener, door) in [("customers", nginx.customers), ("staff", nginx.staff)] {
        for (path, method, tag) in described(listener) {
            let of_files = match &*path {
                // It has no state.
                "/status" => false,
                "/login" | "/logout" | "/storage/check" => true,
                _ => [
                    "assignments",
                    "couriers",
                    "deliveries",
                    "overview",
                    "packages",
                ]
                .contains(&&*tag),
            };
            let mut connection = door.connect_from(&from).await;
            // Staff's requests go to the server that has fewer of them: of some, to each.
            for path in [&*path, &format!("{}/", path.trim_end_matches('/')), &*path] {
                let ask = Ask::new(method.clone(), path);
                connection.ask(&ask).await.expect(200);
            }
            let arrived = [&stubs[0], &stubs[1]].map(|stub| stub.take().len());
            if of_files {
                assert_eq!(arrived, [3, 0], "{listener}: {method} {path} of {tag}");
            } else {
                assert!(arrived[1] > 0, "{listener}: {method} {path} of {tag}");
            }
        }
    }
    // A session is valid at the server that began it.
    for _ in 0..3 {
        let ask = get("/start/").header("Cookie", "odyssey_session=of-the-owner");
        nginx.staff.ask(ask).await.expect(200);
    }
    assert!(stubs[1].take().is_empty());
}

#[test]
fn the_files_for_containers_agree_with_those_that_a_site_edits() {
    let directives = |text: &str| {
        let lines = text.lines().map(|line| line.trim().to_owned());
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.collect::<Vec<_>>()
    };
    let shipped = file("nginx/site/desks.conf").replace("    # \"~", "    \"~");
    let scale = file("nginx/compose/scale/desks.conf");
    assert_eq!(directives(&scale), directives(&shipped));

    // The groups of servers, without their addresses.
    let groups = |text: &str| {
        let lines = directives(text).into_iter().map(|line| {
            let server = line
                .strip_prefix("server ")
                .and_then(|line| line.split_once(' '));
            server.map_or(line.clone(), |(_, rest)| format!("server ADDRESS {rest}"))
        });
        lines.collect::<Vec<_>>()
    };
    let commented = file("nginx/site/upstreams.conf");
    let (_, commented) = commented.rsplit_once("\n#\n").unwrap();
    let shipped = groups(&commented.replace("\n# ", "\n").replacen("# ", "", 1));
    assert_eq!(shipped.len(), 25, "{shipped:?}");
    for other in [
        file("nginx/compose/scale/upstreams.conf"),
        file("packaging/kubernetes/site/upstreams.conf"),
        std::fs::read_to_string(
            variant_of("a:1,b:1", "a:2,b:2", &[])
                .0
                .path()
                .join("site/upstreams.conf"),
        )
        .unwrap(),
    ] {
        assert_eq!(groups(&other), shipped);
    }
}

/// How often a request arrives, of servers that all close.
async fn arrivals(door: Door, stubs: &[Stub], ask: Ask) -> usize {
    let what = format!("{ask:?}");
    door.expect_problem(ask, 502, "unreachable").await;
    let heads: Vec<_> = stubs.iter().flat_map(Stub::take).collect();
    let ids: BTreeSet<_> = heads
        .iter()
        .map(|head| field(head, "proxy-request"))
        .collect();
    assert!(ids.len() == 1 && !ids.contains(&None), "{what}: {ids:?}");
    let is_idempotent = !heads[0].starts_with("post ");
    let first_round = if is_idempotent { heads.len().min(2) } else { 1 };
    let unmarked = heads
        .iter()
        .filter(|head| field(head, "proxy-resent").is_none());
    assert_eq!(unmarked.count(), first_round, "{what} of the first round");
    heads.len()
}

#[tokio::test]
async fn a_request_that_ends_every_server_arrives_as_often_as_the_table_says() {
    let (nginx, stubs) = behind_nginx(&[Then::Closes, Then::Closes]).await;
    let (customers, staff) = (nginx.customers, nginx.staff);
    for (door, ask, times) in [
        (customers, order(), MOST),
        (customers, get("/orders/7"), IDEMPOTENT_MOST),
        (customers, delete("/orders/7/"), IDEMPOTENT_MOST),
        (customers, get("/"), 2),
        // Of the owner.
        (customers, get("/packages/7"), 1),
        (customers, put("/preferences/7"), 1),
        (staff, get("/start/?wait=50"), IDEMPOTENT_MOST),
        (staff, post("/start"), MOST),
        (staff, post("/finish/?order_id=7"), MOST),
        (staff, post("/extend/?order_id=7"), MOST),
        (staff, get("/orders/7"), IDEMPOTENT_MOST),
        (staff, post("/release/?order_id=7"), 1),
        (staff, get("/flood"), 2),
        (staff, delete("/flood/198.51.100.7"), 2),
        (staff, post("/events"), 1),
    ] {
        let what = format!("{ask:?}");
        assert_eq!(arrivals(door, &stubs, ask).await, times, "{what}");
    }
}

#[tokio::test]
async fn with_one_server_nothing_is_sent_twice() {
    let (nginx, stubs) = behind_nginx(&[Then::Closes]).await;
    let (customers, staff) = (nginx.customers, nginx.staff);
    for (door, ask) in [
        (customers, order()),
        (customers, get("/orders/7")),
        (staff, get("/start/")),
        (staff, post("/finish/?order_id=7")),
        (staff, put("/manifest")),
    ] {
        let what = format!("{ask:?}");
        assert_eq!(arrivals(door, &stubs, ask).await, 1, "{what}");
    }
}

#[tokio::test]
async fn a_server_that_is_lost_after_an_answer_of_another_has_no_part_in_it() {
    // One of them answers: a request that the other one does not answer ends there.
    let (nginx, stubs) = behind_nginx(&[Then::Closes, Then::Answers]).await;
    for number in 1..20 {
        let mut connection = nginx
            .customers
            .connect_from(&format!("127.0.8.{number}"))
            .await;
        connection.ask(&order()).await.expect(200);
        nginx.staff.ask(post("/start/")).await.expect(200);
    }
    assert_eq!(stubs[1].take().len(), 2 * 19);
    assert!(!stubs[0].take().is_empty());
}

/// nginx's configuration in a directory of its own: `nginx/`, with these files in `site/`, on ports of ours.
fn assembled(files: &[&str]) -> tempfile::TempDir {
    let (dir, ..) = variant_of("127.0.0.1:1", "127.0.0.1:2", &[]);
    let site = dir.path().join("site");
    for path in files {
        let name = Path::new(path).file_name().unwrap();
        let mut text = file(path);
        for (name, address) in [("odyssey-0", "127.0.0.1"), ("odyssey-1", "127.0.0.2")] {
            text = text.replace(name, address);
        }
        text = text.replace(
            "error_log /dev/stderr",
            "pid nginx.pid;\nerror_log error.log",
        );
        std::fs::write(site.join(name), text).unwrap();
    }
    dir
}

#[test]
fn nginx_accepts_its_configuration_as_containers_assemble_it() {
    let resend = ["nginx/resend-customers.conf", "nginx/resend-staff.conf"];
    let scale = "nginx/compose/scale/desks.conf";
    let kubernetes = ["listen-customers", "listen-staff", "process", "upstreams"]
        .map(|name| format!("packaging/kubernetes/site/{name}.conf"));
    let kubernetes: Vec<&str> = kubernetes.iter().map(|name| &**name).collect();
    for files in [
        vec!["nginx/compose/upstreams.conf"],
        [&resend[..], &[scale, "nginx/compose/scale/upstreams.conf"]].concat(),
        [&resend[..], &[scale], &kubernetes].concat(),
    ] {
        let dir = assembled(&files);
        let checked = Command::new("nginx")
            .args(["-t", "-p", dir.path().to_str().unwrap(), "-c", "nginx.conf"])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{files:?}: {checked:?}");
    }
}
