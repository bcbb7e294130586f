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

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, Macro, UseTree};

/// A module, and the modules that it may use. `app` may also use every desk.
const MODULES: &str = "
    lib:
    main: app cli config telemetry
    cli: app config version
    notify:
    app: config http flood storage notify shutdown telemetry version
    config:
    telemetry: config
    shutdown: orders http::status http::connection::Shutdown
    http: values version telemetry::Registry storage::Unavailable storage::SpaceLow storage::State storage::preflight
    flood: http values
    storage: values
    values:
    version:
";

/// A part of a desk, and the parts of the same desk that it may use.
const DESKS: &str = "
    orders::routes: service hold model error
    orders::service: hold line metrics model error
    orders::hold: service line model
    orders::metrics: line
    orders::line: model error
    orders::error: model
    orders::model:

    deliveries::routes: service store model error
    deliveries::service: store metrics model error
    deliveries::sqlite: store rules model error
    deliveries::metrics: store model error
    deliveries::store: rules model error
    deliveries::rules: model error
    deliveries::error: model
    deliveries::model:

    packages::routes: service model error
    packages::service: store metrics model error
    packages::sqlite: store audit model error
    packages::metrics: model error
    packages::store: model error
    packages::audit: model
    packages::model:
    packages::error:

    assignments::routes: service store matching rules model error
    assignments::service: store turns matching oplog metrics model error
    assignments::turns: matching metrics error
    assignments::sqlite: store model error
    assignments::dynamodb: store model error
    assignments::metrics: model error
    assignments::store: model error
    assignments::oplog: model
    assignments::matching: rules model
    assignments::error: model
    assignments::model: rules
    assignments::rules: model

    couriers::routes: service store reading model error
    couriers::service: store topic metrics model error
    couriers::queues: service store topic reading model error
    couriers::sqlite: store dispatch model error
    couriers::redis: store model error
    couriers::metrics: model error
    couriers::topic: model error
    couriers::store: model error
    couriers::replay: store model error
    couriers::reading: model
    couriers::dispatch: model
    couriers::error:
    couriers::model:
";

/// A part of any desk, and what it may use outside of its desk.
const OUTSIDE: &str = "
    routes: http flood values
    service: storage::carried_through storage::Clock storage::FreeSpace values
    store: storage::State
    error: storage::Unavailable storage::SpaceLow
    model: values
    reading: values
    sqlite: storage
    redis: storage
    dynamodb: storage values
    queues: storage values
    oplog: storage values
";

const HTTP: &str =
    "axum axum_core h2 http http_body http_body_util hyper hyper_util tower tower_http";
const ENGINES: &str =
    "aws_config aws_sdk_dynamodb aws_sdk_s3 aws_sdk_sns aws_sdk_sqs redis rusqlite";
/// Input, output, tasks and clocks; time is an argument.
const EFFECTS: &str = "metrics std::fs std::io std::net std::os std::process std::thread tokio tokio_util tracing \
    Instant::now SystemTime::now Timestamp::now Zoned::now";

/// What a part of a desk may not use.
fn forbidden(part: &str) -> Vec<&'static str> {
    let lists = match part {
        "model" | "rules" | "line" | "matching" | "dispatch" | "reading" => {
            &[HTTP, ENGINES, EFFECTS][..]
        }
        "error" | "service" | "store" | "hold" | "metrics" => &[HTTP, ENGINES],
        "routes" => &[ENGINES],
        _ => &[HTTP],
    };
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .collect()
}

/// What one module alone may use, and that module.
const RESERVED: [(&str, &str); 2] = [("std::env", "config"), ("tokio::signal", "shutdown")];

/// The paths of a source file, outside of its tests.
#[derive(Default)]
struct Source {
    /// Modules around the current item.
    at: Vec<String>,
    /// Resolved paths inside the crate, without `crate`.
    inside: BTreeSet<String>,
    /// Other paths: of other crates, or of names that a `use` brought in.
    outside: BTreeSet<String>,
    /// Names that a `use` brought in from this crate.
    local: BTreeSet<String>,
    /// Modules in other files that are for tests only.
    tests: Vec<String>,
}

impl Source {
    fn read(file: &str, text: &str) -> Self {
        let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let mut source = Self::default();
        if name != "lib" {
            source.at = name.split('/').map(str::to_owned).collect();
        }
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        source.visit_file(&parsed);
        source
    }

    fn add(&mut self, path: &[String], is_use: bool) {
        let mut module = self.at.clone();
        let mut rest = path;
        match path[0].as_str() {
            "crate" | "odyssey" => module.clear(),
            "self" if path.len() > 1 => {}
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
                rest = &path[path.len() - rest.len() - 1..];
            }
            _ => {
                self.outside.insert(path.join("::"));
                return;
            }
        }
        module.extend_from_slice(&rest[1..]);
        if let Some(name) = path.last().filter(|_| is_use) {
            self.local.insert(name.clone());
        }
        self.inside.insert(module.join("::"));
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) if name.ident == "self" => self.add(prefix, true),
            UseTree::Name(name) => self.add(&with(&name.ident), true),
            UseTree::Rename(name) => self.add(&with(&name.ident), true),
            UseTree::Glob(_) => self.add(&[prefix, &["*".to_owned()]].concat(), true),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix, tree);
                }
            }
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|it| it.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test(&module.attrs) {
            self.tests.push(module.ident.to_string());
            return;
        }
        self.at.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        if segments.len() > 1 {
            self.add(&segments, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        visit::visit_macro(self, invoked);
        let text = invoked.tokens.to_string().replace(" :: ", "::");
        let is_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
        // Without string literals.
        let code = text.split('"').step_by(2);
        for path in code.flat_map(|code| code.split(|letter| !is_path(letter))) {
            let segments: Vec<_> = path.split("::").map(str::to_owned).collect();
            if segments.len() > 1 && segments.iter().all(|segment| !segment.is_empty()) {
                self.add(&segments, false);
            }
        }
    }
}

/// The lines of a table: a name, and what follows it.
fn table(text: &'static str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = text.lines().filter_map(|line| line.trim().split_once(':'));
    // `orders::routes: service` has its colons first.
    rows.map(|(name, rest)| match rest.strip_prefix(':') {
        None => (name.to_owned(), rest),
        Some(rest) => {
            let (part, rest) = rest.split_once(':').unwrap();
            (format!("{name}::{part}"), rest)
        }
    })
    .map(|(name, rest)| (&*name.leak(), rest.split_whitespace().collect()))
    .collect()
}

fn is_under(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Everything that is wrong in these files, whose names are relative to `src`.
fn faults(files: &[(String, String)]) -> Vec<String> {
    let (modules, desks, outside) = (table(MODULES), table(DESKS), table(OUTSIDE));
    let is_desk = |name: &str| desks.keys().any(|part| is_under(part, name));
    let sources: Vec<_> = files
        .iter()
        .map(|(file, text)| (file, Source::read(file, text)))
        .collect();
    let tests: BTreeSet<String> = sources
        .iter()
        .flat_map(|(_, source)| {
            source.tests.iter().map(|name| {
                [&source.at[..], std::slice::from_ref(name)]
                    .concat()
                    .join("::")
            })
        })
        .collect();
    let mut faults = Vec::new();
    for (file, source) in &sources {
        let name = source.at.join("::");
        if tests.iter().any(|test| is_under(&name, test)) {
            continue;
        }
        let top = source.at.first().map_or("lib", String::as_str);
        let part = source.at.get(1).map(|part| format!("{top}::{part}"));
        let part = part.filter(|_| is_desk(top));
        let mut fault = |what: String| faults.push(format!("src/{file}: {what}"));
        let allowed: Vec<String> = match &part {
            None if is_desk(top) => vec![top.to_owned()],
            None => {
                let row = modules
                    .get(top)
                    .map(|row| row.iter().map(|name| (*name).to_owned()));
                let Some(row) = row else {
                    fault(format!("`{top}` is in no table"));
                    continue;
                };
                let of_app = desks.keys().filter(|_| top == "app");
                let of_app = of_app.map(|part| part.split("::").next().unwrap().to_owned());
                row.chain(of_app).chain([top.to_owned()]).collect()
            }
            Some(part) => {
                let (Some(siblings), name) = (desks.get(&**part), &source.at[1]) else {
                    fault(format!("`{part}` is in no table"));
                    continue;
                };
                let siblings = siblings.iter().map(|other| format!("{top}::{other}"));
                let outside = outside.get(&**name).into_iter().flatten();
                siblings
                    .chain(outside.map(|it| (*it).to_owned()))
                    .chain([part.clone()])
                    .collect()
            }
        };
        for path in &source.inside {
            let to = path.split("::").next().unwrap();
            let is_module = modules.contains_key(to) || is_desk(to);
            if is_module && !allowed.iter().any(|allowed| is_under(path, allowed)) {
                fault(format!("may not use `{path}`"));
            }
        }
        let crates = part
            .iter()
            .flat_map(|part| forbidden(part.split("::").nth(1).unwrap()));
        let crates: Vec<_> = crates.collect();
        for path in &source.outside {
            let first = path.split("::").next().unwrap();
            let is_forbidden =
                |name: &&str| is_under(path, name) || path.ends_with(&format!("::{name}"));
            if !source.local.contains(first) && crates.iter().any(is_forbidden) {
                fault(format!("may not use `{path}`"));
            }
            for (reserved, of) in RESERVED {
                if is_under(path, reserved) && top != of {
                    fault(format!("only `{of}` may use `{path}`"));
                }
            }
        }
    }
    faults
}

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
    assert!(files.len() > 100, "{} files", files.len());
    let faults = faults(&files);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// A file, its text, and the violation: "none" for none, empty for several.
const VIOLATIONS: &[[&str; 3]] = &[
    [
        "main.rs",
        "use odyssey::http::Problem;",
        "may not use `http::Problem`",
    ],
    [
        "http/edge.rs",
        "use super::super::app::{App};",
        "may not use `app::App`",
    ],
    [
        "http/edge.rs",
        "fn a() { crate::config::b() }",
        "may not use `config::b`",
    ],
    ["kiosk/mod.rs", "", "`kiosk` is in no table"],
    ["orders/kiosk.rs", "", "`orders::kiosk` is in no table"],
    ["orders/model.rs", "use super::{error::A, line::Line};", ""],
    [
        "orders/line/pace.rs",
        "use super::super::service::A;",
        "may not use `orders::service::A`",
    ],
    [
        "orders/routes.rs",
        "use crate::packages::A;",
        "may not use `packages::A`",
    ],
    [
        "orders/routes.rs",
        "use super::Orders;",
        "may not use `orders::Orders`",
    ],
    [
        "orders/error.rs",
        "use crate::storage::sqlite::A;",
        "may not use `storage::sqlite::A`",
    ],
    [
        "orders/service.rs",
        "fn a() { b!(hyper::c()); }",
        "may not use `hyper::c`",
    ],
    [
        "orders/model.rs",
        "fn a() { std::time::Instant::now() }",
        "may not use `std::time::Instant::now`",
    ],
    [
        "orders/routes.rs",
        "use rusqlite::*;",
        "may not use `rusqlite::*`",
    ],
    [
        "app.rs",
        "fn a() { std::env::var(B) }",
        "only `config` may use `std::env::var`",
    ],
    [
        "app.rs",
        "use tokio::signal;",
        "only `shutdown` may use `tokio::signal`",
    ],
    [
        "app.rs",
        "use crate::orders::A; #[cfg(test)] mod b { use std::env; }",
        "none",
    ],
    [
        "orders/model.rs",
        "/// axum::Json\nconst A: &str = \"hyper::b\";",
        "none",
    ],
];

#[test]
fn each_kind_of_violation_is_found() {
    for [file, text, expected] in VIOLATIONS {
        let found = faults(&[((*file).to_owned(), (*text).to_owned())]);
        match *expected {
            "none" => assert!(found.is_empty(), "{file}: {found:?}"),
            "" => assert_eq!(found.len(), 2, "{file}: {found:?}"),
            expected => assert_eq!(found, [format!("src/{file}: {expected}")]),
        }
    }
}
