//! Checks the dependencies between the modules of `src` against the tables below, and which modules may use which crates.
//!
//! The sources are parsed; every path in a `use`, in code and in macros counts, except in test modules. The last test breaks each
//! kind of rule, because a check that cannot fail checks nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test reports a failure by panicking, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

/// A module, and the modules that it may use. `app` may also use every desk.
const MODULES: &str = "
    lib:
    main: app cli config telemetry
    cli: access app config values version
    notify:
    access: storage::Condition values
    app: access config http flood overview storage notify shutdown telemetry version
    config: access::config http::config flood orders deliveries packages assignments couriers storage::config shutdown telemetry::config values
    overview: orders deliveries packages assignments couriers flood http storage::Unavailable values
    telemetry: values
    shutdown: values orders http::status http::connection::Shutdown
    http: access values version telemetry::Registry storage::Unavailable storage::SpaceLow storage::State storage::Failure storage::preflight
    flood: http values
    storage: values
    values:
    version:
";

/// A part of any desk, the parts of the same desk that it may use, and after the bar what else it may use.
const DESKS: &str = "
    routes: changes screens requests service hold store matching manifest rules reading idempotency oplog::Cause model error | access::Role http flood values
    changes: model
    screens: service model error
    service: changes memory shared requests hold store line turns matching oplog topic manifest metrics idempotency model error config | storage::carried_through storage::Clock storage::FreeSpace values
    hold: line model | values
    requests: hold line idempotency model | values
    memory: changes requests hold line metrics idempotency model error config | values
    shared: changes memory requests hold store line metrics idempotency model error config | storage::Condition storage::State values
    turns: matching metrics error
    queues: service store topic reading model error config | storage values
    sqlite: store rules audit dispatch model error config | storage
    dynamodb: store model error config | storage values
    redis: store model error | storage
    oplog: model | storage values
    metrics: store line model error | values
    topic: model error
    replay: store model error
    store: rules model error config | storage::State
    audit: model
    line: idempotency model error config | values
    matching: manifest rules model
    manifest: rules model
    dispatch: model
    reading: model | values
    rules: model error config | values
    idempotency: | values
    error: model | storage::Unavailable storage::SpaceLow
    model: | values
    config: model | values
";
const DESK_NAMES: [&str; 5] = [
    "orders",
    "deliveries",
    "packages",
    "assignments",
    "couriers",
];

const HTTP: &str =
    "axum axum_core h2 http http_body http_body_util hyper hyper_util tower tower_http";
const ENGINES: &str =
    "aws_config aws_sdk_dynamodb aws_sdk_s3 aws_sdk_sns aws_sdk_sqs redis rusqlite";
/// Input, output, tasks and clocks; time is an argument.
const EFFECTS: &str = "metrics std::fs std::io std::net std::os std::process std::thread tokio tokio_util tracing \
    Instant::now SystemTime::now Timestamp::now Zoned::now";

/// Parts that are functions of their arguments, and what they may not use.
const PURE: &str = "model idempotency rules manifest line matching dispatch reading";
/// Parts that know no engine.
const PORTS: &str = "error service store hold metrics";

/// What one module alone may use, and that module.
const RESERVED: [(&str, &str); 2] = [("std::env", "config"), ("tokio::signal", "shutdown")];

fn forbidden(part: &str) -> impl Iterator<Item = &'static str> {
    let is_in = |list: &str| list.split(' ').any(|name| name == part);
    let lists = match part {
        _ if is_in(PURE) => &[HTTP, ENGINES, EFFECTS][..],
        _ if is_in(PORTS) => &[HTTP, ENGINES],
        "routes" => &[ENGINES],
        _ => &[HTTP],
    };
    lists.iter().flat_map(|list| list.split_whitespace())
}

/// The paths of a source file, outside of its tests.
#[derive(Default)]
struct Source {
    /// The file's module.
    at: Vec<String>,
    /// Resolved paths inside the crate, without `crate`.
    inside: BTreeSet<String>,
    /// Other paths: of other crates, or of names that a `use` brought in.
    outside: BTreeSet<String>,
    /// Names that a `use` brought in from this crate.
    local: BTreeSet<String>,
}

impl Source {
    fn read(file: &str, text: &str) -> Self {
        let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let mut source = Self::default();
        if name != "lib" {
            source.at = name.split('/').map(str::to_owned).collect();
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let tokens = code
            .parse()
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        source.walk(tokens, &[]);
        source
    }

    fn add(&mut self, path: &[String], is_use: bool) {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (module, rest) = match path[0].as_str() {
            "crate" | "odyssey" => (&[][..], &path[1..]),
            "self" => (&self.at[..], &path[1..]),
            "super" => (
                &self.at[..self.at.len().saturating_sub(supers)],
                &path[supers..],
            ),
            _ => {
                self.outside.insert(path.join("::"));
                return;
            }
        };
        self.inside.insert([module, rest].concat().join("::"));
        self.local.extend(path.last().filter(|_| is_use).cloned());
    }

    /// Adds the paths among the tokens; `prefix` is what a `use` has before its braces.
    fn walk(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let is = |at: usize, mark: char| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == mark);
        let continues = |at: usize| is(at, ':') && is(at + 1, ':');
        let mut in_use = !prefix.is_empty();
        let mut at = 0;
        while at < tokens.len() {
            let mut path = prefix.to_vec();
            loop {
                match &tokens[at] {
                    TokenTree::Group(group) => {
                        self.walk(group.stream(), if in_use { &path } else { &[] });
                        path.clear();
                    }
                    TokenTree::Ident(name) if name == "use" => in_use = !is(at + 1, '<'),
                    TokenTree::Ident(name) if name == "as" && in_use => at += 1,
                    TokenTree::Ident(name) if name == "self" && !path.is_empty() => {
                        self.add(&path, true);
                    }
                    TokenTree::Ident(name) => path.push(name.to_string()),
                    TokenTree::Punct(mark) if mark.as_char() == '*' && in_use => {
                        path.push("*".into());
                    }
                    _ => in_use &= !is(at, ';'),
                }
                at += 1;
                if !continues(at) || at + 2 >= tokens.len() {
                    break;
                }
                at += 2;
            }
            if path.len() > prefix.len().max(usize::from(!in_use)) {
                self.add(&path, in_use);
            }
        }
    }
}

fn table(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    let rows = text.lines().map(str::trim).filter(|row| !row.is_empty());
    rows.map(|row| row.split_once(':').unwrap()).collect()
}

fn is_under(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_under_any(path: &str, prefixes: &str) -> bool {
    let mut prefixes = prefixes.split_whitespace();
    prefixes.any(|prefix| is_under(path, prefix))
}

/// Everything that is wrong in a file, whose name is relative to `src`.
fn faults(file: &str, text: &str) -> Vec<String> {
    let (modules, parts) = (table(MODULES), table(DESKS));
    let source = Source::read(file, text);
    let top = source.at.first().map_or("lib", String::as_str);
    let is_desk = |name: &str| DESK_NAMES.contains(&name);
    // A desk's `mod.rs` may use its whole desk.
    let part = source.at.get(1).filter(|_| is_desk(top));
    let row = match part {
        Some(part) => parts.get(&**part).copied(),
        None if is_desk(top) => Some(""),
        None => modules.get(top).copied(),
    };
    let own = part.map_or(top.to_owned(), |part| format!("{top}::{part}"));
    let Some(row) = row else {
        return vec![format!("src/{file}: `{own}` is in no table")];
    };
    let (siblings, others) = match part {
        Some(_) => row.split_once('|').unwrap_or((row, "")),
        None => ("", row),
    };
    let is_allowed = |path: &str| {
        let sibling = path.strip_prefix(top).and_then(|it| it.strip_prefix("::"));
        is_under(path, &own)
            || is_under_any(path, others)
            || sibling.is_some_and(|path| is_under_any(path, siblings))
            || top == "app" && DESK_NAMES.iter().any(|desk| is_under(path, desk))
    };
    let inside = source.inside.iter().filter(|path| {
        let to = path.split("::").next().unwrap();
        (modules.contains_key(to) || is_desk(to)) && !is_allowed(path)
    });
    let outside = source.outside.iter().filter(|path| {
        let first = path.split("::").next().unwrap();
        let is_forbidden = |name| is_under(path, name) || path.ends_with(&format!("::{name}"));
        !source.local.contains(first) && part.is_some_and(|part| forbidden(part).any(is_forbidden))
    });
    let faults = inside
        .chain(outside)
        .map(|path| format!("may not use `{path}`"));
    let reserved = RESERVED.iter().filter(|(_, of)| *of != top);
    let reserved = reserved.flat_map(|(reserved, of)| {
        let paths = source
            .outside
            .iter()
            .filter(|path| is_under(path, reserved));
        paths.map(move |path| format!("only `{of}` may use `{path}`"))
    });
    let faults = faults.chain(reserved);
    faults.map(|fault| format!("src/{file}: {fault}")).collect()
}

/// The siblings by which a file depends on others: `a::b` and `a::c` if `a::b::d` uses `a::c::e`.
fn between_siblings<'a>(
    source: &'a Source,
    all: &'a [Source],
) -> impl Iterator<Item = (String, String)> + 'a {
    source.inside.iter().filter_map(|path| {
        let path: Vec<_> = path.split("::").map(str::to_owned).collect();
        let around = all.iter().filter(|other| path.starts_with(&other.at));
        let used = &around.max_by_key(|other| other.at.len())?.at;
        let mut parts = source.at.iter().zip(used);
        let same = parts.position(|(one, other)| one != other)?;
        let sibling = |module: &[String]| module[..=same].join("::");
        Some((sibling(&source.at), sibling(used)))
    })
}

/// Siblings that use each other, directly or through others.
fn cycles(sources: &[Source]) -> BTreeSet<String> {
    let edges = sources.iter();
    let mut edges: Vec<_> = edges.flat_map(|it| between_siblings(it, sources)).collect();
    let mut before = usize::MAX;
    while edges.len() < before {
        before = edges.len();
        let (from, to): (BTreeSet<_>, BTreeSet<_>) = edges.iter().cloned().unzip();
        edges.retain(|(one, other)| to.contains(one) && from.contains(other));
    }
    edges.into_iter().map(|(one, _)| one).collect()
}

/// Files of tests.
const TESTS: [&str; 5] = [
    "tests.rs",
    "tests/",
    "contract.rs",
    "contract/",
    "model_checked.rs",
];

fn files_under(directory: &Path, name: &str, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files_under(&path, &format!("{name}/"), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn modules_use_only_what_the_tables_allow() {
    let mut files = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    files_under(&src, "", &mut files);
    let is_test = |name: &str| TESTS.iter().any(|test| name.contains(test));
    files.retain(|(name, _)| !is_test(name));
    assert!(files.len() > 100, "{} files", files.len());
    let faults = files.iter().flat_map(|(name, text)| faults(name, text));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    let sources = files.iter().map(|(name, text)| Source::read(name, text));
    let sources: Vec<_> = sources.collect();
    assert_eq!(cycles(&sources), BTreeSet::new());
}

/// A file, its text, and the violations.
const VIOLATIONS: &str = r#"
    main.rs | use odyssey::http::Problem; | may not use `http::Problem`
    http/edge.rs | use super::super::app::{App}; | may not use `app::App`
    http/edge.rs | fn a() { crate::config::b() } | may not use `config::b`
    kiosk/mod.rs | | `kiosk` is in no table
    orders/kiosk.rs | | `orders::kiosk` is in no table
    orders/model.rs | use super::{error::A, line::Line}; | may not use `orders::error::A`, may not use `orders::line::Line`
    orders/line/pace.rs | use super::super::service::A; | may not use `orders::service::A`
    orders/routes.rs | use crate::packages::A; | may not use `packages::A`
    orders/routes.rs | use super::Orders; | may not use `orders::Orders`
    orders/error.rs | use crate::storage::sqlite::A; | may not use `storage::sqlite::A`
    orders/service.rs | fn a() { b!(hyper::c()); } | may not use `hyper::c`
    orders/model.rs | fn a() { std::time::Instant::now() } | may not use `std::time::Instant::now`
    orders/routes.rs | use rusqlite::*; | may not use `rusqlite::*`
    app.rs | fn a() { std::env::var(B) } | only `config` may use `std::env::var`
    app.rs | use tokio::signal; | only `shutdown` may use `tokio::signal`
    orders/model.rs | const A: &str = "hyper::b"; /// axum::Json |
"#;

#[test]
fn each_kind_of_violation_is_found() {
    for row in VIOLATIONS.trim().lines() {
        let mut columns = row.splitn(3, '|').map(|column| column.trim().to_owned());
        let [file, text] = [0; 2].map(|_| columns.next().unwrap());
        let expected = columns.next().unwrap();
        let expected = expected.split(", ").filter(|it| !it.is_empty());
        let expected: Vec<_> = expected.map(|it| format!("src/{file}: {it}")).collect();
        assert_eq!(faults(&file, &text), expected);
    }
}

#[test]
fn siblings_that_use_each_other_are_a_cycle_and_a_parent_and_its_child_are_none() {
    let mut sources = vec![
        Source::read("http/a.rs", "use self::child::A; use super::b::B;"),
        Source::read("http/a/child.rs", "use super::C;"),
        Source::read("http/b.rs", "use super::c::D;"),
    ];
    assert!(cycles(&sources).is_empty());
    sources.push(Source::read("http/c.rs", "fn d() { super::a::e() }"));
    let cycle = ["http::a", "http::b", "http::c"].map(str::to_owned);
    assert_eq!(cycles(&sources), cycle.into());
}
