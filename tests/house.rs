//! Holds the arrows of the house: who may know whom, and what the rooms of a desk may not do.
//!
//! It reads the sources as tokens, so that neither comments nor strings nor line breaks mislead it, and finds every path:
//! in `use` lines, inline, and inside macros. Test modules are free to know more and are left out.
//! What is permitted stands in the tables below; whoever draws a new arrow draws it there first.
//! The second half of this file breaks every rule on purpose, because a check that cannot fail checks nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::iter::Peekable;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

// --- What is permitted ---------------------------------------------------------------------------------------------

/// A module, and those it may know.
type Arrows = &'static [(&'static str, &'static [&'static str])];

/// The house, without its desks. `app` sees everything, desks included.
const HOUSE: Arrows = &[
    ("lib", &[]),
    ("main", &["app", "cli", "config", "telemetry"]),
    ("cli", &["app", "config", "version"]),
    ("notify", &[]),
    (
        "app",
        &[
            "config",
            "http",
            "flood",
            "storage",
            "notify",
            "shutdown",
            "telemetry",
            "version",
        ],
    ),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("shutdown", &[]),
    ("http", &["values", "version"]),
    ("flood", &["http", "values"]),
    ("storage", &["values"]),
    ("values", &[]),
    ("version", &[]),
];

/// The desks, each with its rooms and whom they may know inside it.
const DESKS: &[(&str, Arrows)] = &[
    (
        "orders",
        &[
            ("routes", &["service", "hold", "model", "error"]),
            ("service", &["hold", "line", "metrics", "model", "error"]),
            // What is held leaves through the service it came from: the one circle among the orders.
            ("hold", &["service", "line", "model"]),
            ("metrics", &["line"]),
            ("line", &["model", "error"]),
            ("error", &["model"]),
            ("model", &[]),
        ],
    ),
    (
        "deliveries",
        &[
            ("routes", &["service", "store", "model", "error"]),
            ("service", &["store", "metrics", "model", "error"]),
            ("sqlite", &["store", "rules", "model", "error"]),
            ("metrics", &["store", "model", "error"]),
            ("store", &["rules", "model", "error"]),
            ("rules", &["model", "error"]),
            ("error", &["model"]),
            ("model", &[]),
        ],
    ),
    (
        "packages",
        &[
            ("routes", &["service", "model", "error"]),
            ("service", &["store", "metrics", "model", "error"]),
            ("sqlite", &["store", "audit", "model", "error"]),
            ("metrics", &["model", "error"]),
            ("store", &["model", "error"]),
            ("audit", &["model"]),
            ("model", &[]),
            ("error", &[]),
        ],
    ),
    (
        "assignments",
        &[
            (
                "routes",
                &["service", "store", "matching", "rules", "model", "error"],
            ),
            (
                "service",
                &[
                    "store", "turns", "matching", "oplog", "metrics", "model", "error",
                ],
            ),
            ("turns", &["matching", "metrics", "error"]),
            ("sqlite", &["store", "model", "error"]),
            ("dynamodb", &["store", "model", "error"]),
            ("metrics", &["model", "error"]),
            ("store", &["model", "error"]),
            ("oplog", &["model"]),
            ("matching", &["rules", "model"]),
            ("error", &["model"]),
            // A driver has rules, and a rule judges packages.
            ("model", &["rules"]),
            ("rules", &["model"]),
        ],
    ),
    (
        "couriers",
        &[
            ("routes", &["service", "store", "reading", "model", "error"]),
            ("service", &["store", "topic", "metrics", "model", "error"]),
            // Messages come in there as requests do at the routes, and events go out there.
            (
                "queues",
                &["service", "store", "topic", "reading", "model", "error"],
            ),
            ("sqlite", &["store", "dispatch", "model", "error"]),
            ("redis", &["store", "model", "error"]),
            ("metrics", &["model", "error"]),
            ("topic", &["model", "error"]),
            ("store", &["model", "error"]),
            ("replay", &["store", "model", "error"]),
            ("reading", &["model"]),
            ("dispatch", &["model"]),
            ("error", &[]),
            ("model", &[]),
        ],
    ),
];

/// What a room may know outside its desk. A room that is not here may know nothing there.
const ROOMS_OUTSIDE: Arrows = &[
    // Who may come in is asked where requests come in.
    ("routes", &["http", "flood", "values"]),
    // Ids are compared, and times are shown, in one form at every desk.
    ("model", &["values"]),
    ("reading", &["values"]),
    // Whichever engine a desk has, it is out of reach in the same ways.
    ("error", &["storage::Unavailable", "storage::SpaceLow"]),
    // ... and is well or down in the same way.
    ("store", &["storage::State"]),
    // What was asked of an engine is carried through, and counted, whoever leaves.
    // Silence is measured by a clock that does not jump; what the public writes stops before the disk is full.
    (
        "service",
        &[
            "storage::carried_through",
            "storage::Clock",
            "storage::FreeSpace",
            "values",
        ],
    ),
    ("sqlite", &["storage"]),
    ("redis", &["storage"]),
    ("queues", &["storage", "values"]),
    ("dynamodb", &["storage", "values"]),
    // It is kept in a file, or in S3.
    ("oplog", &["storage", "values"]),
];

/// Arrows against the plan, each with its reason. One that is no longer needed is a mistake, too.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "http",
        "telemetry::Registry",
        "answers are counted where they leave",
    ),
    (
        "http",
        "storage::Unavailable",
        "an engine out of reach is the same problem at every desk",
    ),
    (
        "http",
        "storage::SpaceLow",
        "too little space is the same problem at every desk",
    ),
    (
        "http",
        "storage::State",
        "readiness shows how each desk's engine is",
    ),
    (
        "http",
        "storage::preflight",
        "readiness shows what was checked of each desk's engine",
    ),
    (
        "shutdown",
        "orders",
        "the drain lasts for as long as customers are held",
    ),
    (
        "shutdown",
        "http::status",
        "the first thing that stops is the readiness",
    ),
    (
        "shutdown",
        "http::connection::Shutdown",
        "each listener is told when it is its turn",
    ),
];

/// Crates that speak HTTP.
const HTTP: &[&str] = &[
    "axum",
    "axum_core",
    "h2",
    "http",
    "http_body",
    "http_body_util",
    "hyper",
    "hyper_util",
    "tower",
    "tower_http",
];
/// Crates that speak to an engine.
const ENGINES: &[&str] = &[
    "aws_config",
    "aws_sdk_dynamodb",
    "aws_sdk_s3",
    "aws_sdk_sns",
    "aws_sdk_sqs",
    "redis",
    "rusqlite",
    "sqlx",
];
/// What does more than compute.
const IMPURE: &[&str] = &[
    "futures",
    "metrics",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "tokio",
    "tokio_util",
    "tracing",
];
/// Clocks: time comes in as an argument.
const CLOCKS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// What a room may not name, whatever its desk.
fn forbidden(room: &str) -> Vec<&'static [&'static str]> {
    match room {
        "model" | "rules" | "line" | "places" | "matching" | "dispatch" | "reading" => {
            vec![HTTP, ENGINES, IMPURE, CLOCKS]
        }
        "error" | "service" | "store" | "hold" | "metrics" => vec![HTTP, ENGINES],
        "routes" => vec![ENGINES],
        // Adapters know their engine, and no HTTP.
        _ => vec![HTTP],
    }
}

/// Rooms that every desk may have without a word; others are announced in its story.
const USUAL_ROOMS: &[&str] = &[
    "model", "service", "store", "sqlite", "redis", "dynamodb", "routes", "error",
];

/// Rooms in which nothing waits.
fn is_pure(room: &str) -> bool {
    matches!(room, "model" | "rules" | "line" | "error")
}

// --- Reading -------------------------------------------------------------------------------------------------------

/// A path as it was found.
#[derive(Debug, Clone)]
struct Named {
    segments: Vec<String>,
    line: usize,
    /// It stands in a `use`.
    used: bool,
    /// The module it stands in.
    at: Vec<String>,
}

/// What a source file says that matters here.
#[derive(Debug, Default)]
struct Source {
    file: String,
    module: Vec<String>,
    named: Vec<Named>,
    /// Keywords with their lines: `async`, `await`, `fn`.
    keywords: Vec<(String, usize)>,
    /// Things that would blind this check, with their lines.
    blinding: Vec<(&'static str, usize)>,
    /// Command-line options that can come from the environment, by their lines.
    env_options: Vec<usize>,
    /// Child modules that exist for tests only.
    test_children: Vec<String>,
    text: String,
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

impl Source {
    /// `file` is relative to `src/`.
    fn read(file: &str, text: &str) -> Self {
        let module = match file.trim_end_matches(".rs") {
            "lib" => vec![],
            path => path
                .trim_end_matches("/mod")
                .split('/')
                .map(str::to_owned)
                .collect(),
        };
        let mut source = Self {
            file: file.to_owned(),
            module: module.clone(),
            text: text.to_owned(),
            ..Self::default()
        };
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("src/{file}: {error}"));
        source.scan(tokens, &module);
        source
    }

    fn scan(&mut self, tokens: TokenStream, at: &[String]) {
        let mut tokens = tokens.into_iter().peekable();
        let mut of_test = false;
        while let Some(token) = tokens.next() {
            let line = token.span().start().line;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let attribute = next_group(&mut tokens, Delimiter::Bracket);
                    of_test |=
                        attribute.is_some_and(|attribute| self.attribute(&attribute, line, at));
                }
                TokenTree::Ident(first) if of_test => {
                    let item = rest_of_item(&first.to_string(), &mut tokens);
                    let after_mod = item.iter().skip_while(|word| *word != "mod");
                    self.test_children
                        .extend(after_mod.skip(1).take(1).cloned());
                    of_test = false;
                }
                TokenTree::Ident(ident) => self.word(&ident.to_string(), line, &mut tokens, at),
                TokenTree::Group(group) => self.scan(group.stream(), at),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn word(&mut self, word: &str, line: usize, tokens: &mut Tokens, at: &[String]) {
        match word {
            "use" if !is_punct(tokens, '<') => {
                let found = self.named.len();
                self.tree(Vec::new(), line, tokens, at);
                for named in &mut self.named[found..] {
                    named.used = true;
                }
            }
            "mod" => {
                let Some(TokenTree::Ident(name)) = tokens.next() else {
                    return;
                };
                if let Some(inside) = next_group(tokens, Delimiter::Brace) {
                    let inner: Vec<String> = at.iter().cloned().chain([name.to_string()]).collect();
                    self.scan(inside.stream(), &inner);
                }
            }
            "async" | "await" | "fn" => self.keywords.push((word.to_owned(), line)),
            "extern" if is_ident(tokens, "crate") => self.blinding.push(("extern crate", line)),
            _ => self.inline(word, line, tokens, at),
        }
    }

    /// A path outside `use`, from its first word on.
    fn inline(&mut self, word: &str, line: usize, tokens: &mut Tokens, at: &[String]) {
        let mut segments = vec![word.to_owned()];
        while is_punct(tokens, ':') {
            tokens.next();
            if !is_punct(tokens, ':') {
                break;
            }
            tokens.next();
            let Some(TokenTree::Ident(next)) = tokens.peek() else {
                break;
            };
            segments.push(next.to_string());
            tokens.next();
        }
        // The compiler's macro, not the module of the same name: it reads nothing while the program runs.
        let env_macro = segments == ["std", "env"] && is_punct(tokens, '!');
        if segments.len() > 1 && !env_macro {
            self.name(segments, line, at);
        }
    }

    fn name(&mut self, segments: Vec<String>, line: usize, at: &[String]) {
        self.named.push(Named {
            segments,
            line,
            used: false,
            at: at.to_vec(),
        });
    }

    /// What a `use` brings in, from here to its end or to the next comma.
    fn tree(&mut self, mut prefix: Vec<String>, line: usize, tokens: &mut Tokens, at: &[String]) {
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    let renamed_crate = prefix.len() == 1;
                    if renamed_crate {
                        self.blinding.push(("a crate under another name", line));
                    }
                    tokens.next();
                }
                TokenTree::Ident(ident) if ident == "self" && !prefix.is_empty() => {}
                TokenTree::Ident(ident) => prefix.push(ident.to_string()),
                TokenTree::Punct(punct) => match punct.as_char() {
                    ':' => {}
                    '*' => self.blinding.push(("a glob", line)),
                    _ => break,
                },
                TokenTree::Group(group) => {
                    let mut branches = group.stream().into_iter().peekable();
                    while let Some(first) = branches.peek() {
                        let line = first.span().start().line;
                        self.tree(prefix.clone(), line, &mut branches, at);
                    }
                    // What follows the braces is the end.
                    tokens.next();
                    return;
                }
                TokenTree::Literal(_) => break,
            }
        }
        if !prefix.is_empty() {
            self.name(prefix, line, at);
        }
    }

    /// Looks into an attribute; true if it is for tests only.
    fn attribute(&mut self, attribute: &Group, line: usize, at: &[String]) -> bool {
        let text = attribute.stream().to_string();
        let mut tokens = attribute.stream().into_iter();
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return false;
        };
        match name.to_string().as_str() {
            "cfg" => {
                return words(&text).any(|word| word == "test")
                    && !words(&text).any(|word| word == "not");
            }
            "path" => self.blinding.push(("a module at another path", line)),
            "arg" | "command" if words(&text).any(|word| word == "env") => {
                self.env_options.push(line);
            }
            _ => {}
        }
        self.scan(tokens.collect(), at);
        false
    }

    /// The top-level module it belongs to.
    fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// The room of a desk it belongs to; nothing for the desk's own `mod.rs`.
    fn room(&self) -> Option<&str> {
        self.module.get(1).map(String::as_str)
    }

    /// Names that a `use` makes stand for something of this crate: an inline path that begins so names no other crate.
    fn local_names(&self) -> BTreeSet<&str> {
        let inside = self
            .named
            .iter()
            .filter(|named| named.used && self.resolve(named).is_some());
        inside
            .filter_map(|named| named.segments.last().map(String::as_str))
            .collect()
    }

    /// Where a path leads inside the crate, from its root; nothing if it leads to another crate.
    fn resolve(&self, named: &Named) -> Option<Vec<String>> {
        let mut module = named.at.clone();
        let mut segments = named.segments.iter().map(String::as_str).peekable();
        match segments.next()? {
            "crate" if self.top() != "main" => module.clear(),
            "odyssey" if self.top() == "main" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while segments.peek() == Some(&"super") {
                    segments.next();
                    module.pop();
                }
            }
            _ => return None,
        }
        module.extend(segments.map(str::to_owned));
        Some(module)
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
}

fn is_punct(tokens: &mut Tokens, wanted: char) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_ident(tokens: &mut Tokens, wanted: &str) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Ident(ident)) if ident == wanted)
}

/// The group that comes next, if it does; an inner attribute's `!` may stand before it.
fn next_group(tokens: &mut Tokens, delimiter: Delimiter) -> Option<Group> {
    if delimiter == Delimiter::Bracket && is_punct(tokens, '!') {
        tokens.next();
    }
    match tokens.peek() {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => {
            let group = group.clone();
            tokens.next();
            Some(group)
        }
        _ => None,
    }
}

/// The words of an item up to its braces or its semicolon; what stands in braces is skipped.
fn rest_of_item(first: &str, tokens: &mut Tokens) -> Vec<String> {
    let mut words = vec![first.to_owned()];
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
            TokenTree::Punct(punct) if punct.as_char() == ';' => break,
            _ => {}
        }
    }
    words
}

// --- Checking ------------------------------------------------------------------------------------------------------

/// All sources, without those for tests.
struct House {
    sources: Vec<Source>,
}

/// An arrow: from a module (`orders::routes`, `app`) to a path inside the crate.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
}

#[derive(Debug)]
struct Fault {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

impl House {
    fn of(files: &[(&str, &str)]) -> Self {
        let mut sources: Vec<_> = files
            .iter()
            .map(|(file, text)| Source::read(file, text))
            .collect();
        let for_tests: BTreeSet<Vec<String>> = sources
            .iter()
            .flat_map(|source| {
                source
                    .test_children
                    .iter()
                    .map(|child| [&source.module[..], std::slice::from_ref(child)].concat())
            })
            .collect();
        sources.retain(|source| {
            !for_tests
                .iter()
                .any(|module| source.module.starts_with(module))
        });
        Self { sources }
    }

    /// Everything that is wrong.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for source in &self.sources {
            let mut fault = |line, what| {
                let file = source.file.clone();
                faults.push(Fault { file, line, what });
            };
            check_arrows(source, &mut fault);
            check_crates(source, &mut fault);
            check_words(source, &mut fault);
            if let Some((desk, rooms)) = desk_of(source) {
                self.check_room(source, desk, rooms, &mut fault);
            }
        }
        for (from, to, _) in EXCEPTIONS {
            let needed = self
                .arrows()
                .any(|arrow| arrow.from.starts_with(from) && is_under(&arrow.to, to));
            if !needed && self.sources.iter().any(|source| source.top() == *from) {
                let what = format!("the exception `{from}` to `{to}` is no longer needed");
                let file = format!("{from}.rs");
                faults.push(Fault {
                    file,
                    line: 1,
                    what,
                });
            }
        }
        faults
    }

    fn arrows(&self) -> impl Iterator<Item = Arrow> {
        self.sources.iter().flat_map(|source| {
            let paths = source
                .named
                .iter()
                .filter_map(|named| source.resolve(named));
            paths.map(|path| Arrow {
                from: if source.module.is_empty() {
                    "lib".to_owned()
                } else {
                    source.module.join("::")
                },
                to: path.join("::"),
            })
        })
    }

    /// Inside a desk.
    fn check_room(
        &self,
        source: &Source,
        desk: &str,
        rooms: Arrows,
        fault: &mut impl FnMut(usize, String),
    ) {
        let Some(room) = source.room() else {
            self.check_story(source, desk, fault);
            return;
        };
        let Some((_, permitted)) = rooms.iter().find(|(known, _)| *known == room) else {
            fault(
                1,
                format!("the room `{room}` is in no table of tests/house.rs"),
            );
            return;
        };
        let outside = ROOMS_OUTSIDE
            .iter()
            .find(|(known, _)| *known == room)
            .map_or(&[][..], |(_, outside)| outside);
        for named in &source.named {
            let Some(path) = source.resolve(named) else {
                continue;
            };
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            match path[..] {
                [top, ..] if top != desk => {
                    let whole = path.join("::");
                    // A module with all that is in it, or one thing in it.
                    let permitted = outside.contains(&top) || outside.contains(&whole.as_str());
                    if HOUSE.iter().any(|(module, _)| *module == top) && !permitted {
                        fault(
                            named.line,
                            format!("the room `{room}` may not know `{top}`"),
                        );
                    }
                }
                [_, other, ..] if other == room || permitted.contains(&other) => {}
                [_, other, ..] if self.is_room(desk, other) => {
                    fault(
                        named.line,
                        format!("the room `{room}` may not know `{other}`"),
                    );
                }
                _ => {
                    let path = path.join("::");
                    fault(
                        named.line,
                        format!("`{path}` is a re-export: name it by its room"),
                    );
                }
            }
        }
    }

    fn is_room(&self, desk: &str, name: &str) -> bool {
        let is = |source: &Source| source.top() == desk && source.room() == Some(name);
        self.sources.iter().any(is)
    }

    /// A desk's `mod.rs` tells and re-exports, and does nothing.
    fn check_story(&self, source: &Source, desk: &str, fault: &mut impl FnMut(usize, String)) {
        for (keyword, line) in &source.keywords {
            if keyword == "fn" {
                fault(*line, "a desk's mod.rs has no logic".to_owned());
            }
        }
        let rooms = self.sources.iter().filter(|source| source.top() == desk);
        let rooms: BTreeSet<&str> = rooms.filter_map(Source::room).collect();
        for room in rooms.into_iter().filter(|room| !USUAL_ROOMS.contains(room)) {
            let links = [format!("[`{room}`]"), format!("[`mod@{room}`]")];
            if !links.iter().any(|link| source.text.contains(link)) {
                fault(1, format!("the story does not announce the room `{room}`"));
            }
        }
    }
}

fn desk_of(source: &Source) -> Option<(&'static str, Arrows)> {
    DESKS
        .iter()
        .copied()
        .find(|(desk, _)| *desk == source.top())
}

/// Whether a path is this one, or lies below it.
fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Between the parts of the house.
fn check_arrows(source: &Source, fault: &mut impl FnMut(usize, String)) {
    let top = source.top();
    let desk = DESKS.iter().any(|(desk, _)| *desk == top);
    let permitted = HOUSE.iter().find(|(module, _)| *module == top);
    if permitted.is_none() && !desk {
        fault(1, format!("`{top}` is in no table of tests/house.rs"));
        return;
    }
    for named in &source.named {
        let Some(path) = source.resolve(named) else {
            continue;
        };
        let Some(to) = path.first().filter(|to| *to != top) else {
            continue;
        };
        let excepted = EXCEPTIONS
            .iter()
            .any(|(from, prefix, _)| *from == top && is_under(&path.join("::"), prefix));
        let to_desk = DESKS.iter().any(|(desk, _)| desk == to);
        let allowed = match permitted {
            Some((_, permitted)) => permitted.contains(&to.as_str()) || (top == "app" && to_desk),
            // Which room may is looked at there.
            None => ["http", "flood", "storage", "values"].contains(&to.as_str()),
        };
        if !(allowed || excepted) {
            fault(
                named.line,
                format!("`{top}` may not know `{}`", path.join("::")),
            );
        }
    }
}

/// Crates and parts of the standard library that not everybody may use.
fn check_crates(source: &Source, fault: &mut impl FnMut(usize, String)) {
    let local = source.local_names();
    let room = desk_of(source).and_then(|_| source.room());
    for named in &source.named {
        if source.resolve(named).is_some() {
            continue;
        }
        let inside = !named.used && local.contains(named.segments[0].as_str());
        let path = named.segments.join("::");
        let one_of = |list: &[&str]| list.iter().any(|prefix| is_under(&path, prefix));
        if one_of(&["std::env"]) || (named.used && one_of(&["config::Environment"])) {
            if source.top() != "config" {
                fault(
                    named.line,
                    format!("only config reads the environment, not `{path}`"),
                );
            }
        } else if one_of(&["tokio::signal", "signal_hook", "ctrlc"]) {
            if source.top() != "shutdown" {
                fault(
                    named.line,
                    format!("only shutdown listens for signals, not `{path}`"),
                );
            }
        } else if !inside
            && let Some(room) = room
            && (forbidden(room).into_iter().any(one_of)
                || forbidden(room).contains(&CLOCKS)
                    && CLOCKS.iter().any(|clock| path.ends_with(clock)))
        {
            fault(
                named.line,
                format!("the room `{room}` may not use `{path}`"),
            );
        }
    }
}

fn check_words(source: &Source, fault: &mut impl FnMut(usize, String)) {
    for (what, line) in &source.blinding {
        fault(*line, format!("{what} hides arrows from this check"));
    }
    for line in &source.env_options {
        fault(
            *line,
            "only config reads the environment, not a command-line option".to_owned(),
        );
    }
    let room = desk_of(source).and_then(|_| source.room());
    if let Some(room) = room.filter(|room| is_pure(room)) {
        for (keyword, line) in source
            .keywords
            .iter()
            .filter(|(keyword, _)| keyword != "fn")
        {
            fault(*line, format!("the room `{room}` is never {keyword}"));
        }
    }
}

// --- The house as it stands ----------------------------------------------------------------------------------------

fn sources_under(dir: &Path, inside: &str, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let inside = format!("{inside}{name}");
        if entry.file_type().unwrap().is_dir() {
            sources_under(&entry.path(), &format!("{inside}/"), found);
        } else if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.push((inside, text));
        }
    }
}

fn our_house() -> House {
    let mut found = Vec::new();
    sources_under(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut found,
    );
    let files: Vec<_> = found
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    House::of(&files)
}

#[test]
fn every_arrow_in_the_house_is_permitted() {
    let faults: Vec<String> = our_house().faults().iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_reader_sees_the_house() {
    let house = our_house();
    let arrows: BTreeSet<Arrow> = house.arrows().collect();
    // A reader that sees nothing finds nothing wrong.
    for (from, to) in [
        ("main", "app::Start"),
        ("app", "config::Config"),
        ("app::desks", "orders::Orders"),
        ("shutdown", "orders::Orders"),
        ("http::edge", "telemetry::Registry"),
        ("orders::routes", "http::Problem"),
        ("orders::routes", "orders::service::Orders"),
        ("orders::service", "orders::line::Line"),
        ("orders::line", "orders::model::Order"),
    ] {
        let (from, to) = (from.to_owned(), to.to_owned());
        let arrow = Arrow { from, to };
        assert!(
            arrows.contains(&arrow),
            "{arrow:?} is not among {arrows:#?}"
        );
    }
    for room in DESKS[0].1.iter().map(|(room, _)| room) {
        assert!(
            house.is_room("orders", room),
            "the table knows a room that is not there: {room}"
        );
    }
}

// --- Broken houses -------------------------------------------------------------------------------------------------

/// A small house in order. Each line: a file, and what is in it.
const SOUND: &str = r#"
lib.rs | pub mod app; pub mod http; pub mod orders;
main.rs | use odyssey::app::App; fn main() { odyssey::telemetry::init(); }
app.rs | use crate::config::{self, Config}; use crate::orders::{Orders, routes}; use crate::shutdown; fn a() { config::b() }
config.rs | use config::{Environment, File}; fn a() { std::env::vars(); }
shutdown.rs | use tokio::signal::unix::signal; use crate::orders::Orders; use crate::http::{connection::Shutdown, status::Readiness};
telemetry.rs | use crate::config::Log;
http/mod.rs | pub mod status; pub mod problem; pub use status::A;
http/problem.rs | use crate::storage::{SpaceLow, Unavailable};
http/status.rs | use super::edge::B; use crate::storage::State; use crate::storage::preflight::Finding; use crate::telemetry::Registry;
http/edge.rs | use super::status::A; use hyper::Request;
orders/mod.rs | #![doc = "See [`mod@line`], [`hold`] and [`metrics`]."] pub mod model; pub use service::Orders;
orders/routes.rs | use axum::Json; use super::service::Orders; use crate::http::Problem; async fn a() {}
orders/service.rs | use tokio::sync::oneshot; use super::{error::A, line::B}; async fn a() { Instant::now(); }
orders/hold.rs | use super::service::Desk;
orders/line.rs | mod drain; use std::time::Instant; use super::model::Order; use self::drain::Drain; #[cfg(test)] pub(super) mod tests;
orders/line/throughput.rs | use std::time::Duration; use super::super::model::Order; use super::Line; fn f() -> u8 { 1 }
orders/line/tests.rs | use super::*; use tokio::time; async fn anything_goes() {}
orders/metrics.rs | use metrics::counter; use super::line::Figures;
orders/model.rs | use std::fmt; #[cfg(test)] mod tests { use super::*; use tokio::task; }
orders/error.rs | use super::model::Stage; use thiserror::Error; pub use crate::storage::Unavailable;
"#;

fn sound() -> Vec<(&'static str, &'static str)> {
    let lines = SOUND.lines();
    lines.filter_map(|line| line.split_once(" | ")).collect()
}

fn faults_in(files: &[(&str, &str)]) -> Vec<String> {
    let faults = House::of(files).faults();
    faults.iter().map(Fault::to_string).collect()
}

/// A house in order, but for one file.
fn faults_with(file: &str, text: &str) -> Vec<String> {
    let mut files = sound();
    // The tests of the line are tests because the line says so.
    let orphan = |known: &str| file == "orders/line.rs" && known == "orders/line/tests.rs";
    files.retain(|(known, _)| *known != file && !orphan(known));
    files.push((file, text));
    faults_in(&files)
}

#[test]
fn a_house_in_order_has_no_faults() {
    assert_eq!(faults_in(&sound()), [""; 0]);
}

/// Each line: a file, what is in it, and the one fault to be found.
const BROKEN: &str = r#"
main.rs | use odyssey::http::Problem; | `main` may not know `http::Problem`
main.rs | fn main() { odyssey::orders::brew() } | `main` may not know `orders::brew`
config.rs | use crate::app::App; | `config` may not know `app::App`
telemetry.rs | use crate::orders::Orders; | `telemetry` may not know `orders::Orders`
http/status.rs | use crate::storage::State; use crate::storage::preflight::Finding; use crate::telemetry::Registry; use crate::orders::Orders; | `http` may not know `orders::Orders`
http/status.rs | use crate::storage::State; use crate::storage::preflight::Finding; use crate::telemetry::Registry; fn a() { crate::config::B } | `http` may not know `config::B`
http/status.rs | use crate::storage::State; use crate::storage::preflight::Finding; use crate::telemetry::{Registry, init}; | `http` may not know `telemetry::init`
http/edge.rs | use super::super::app::App; | `http` may not know `app::App`
orders/routes.rs | use crate::packages::Packages; | `orders` may not know `packages::Packages`
flood.rs | use crate::orders::Orders; | `flood` may not know `orders::Orders`
storage/sqlite.rs | use crate::orders::model::Order; | `storage` may not know `orders::model::Order`
kiosk/mod.rs | pub mod model; | `kiosk` is in no table of tests/house.rs
app.rs | use crate::orders::Orders; use crate::kitchen::Stove; | `app` may not know `kitchen::Stove`
lib.rs | pub use crate::app::App; | `lib` may not know `app::App`

orders/model.rs | use super::line::Line; | the room `model` may not know `line`
orders/model.rs | use crate::orders::line::Line; | the room `model` may not know `line`
orders/line.rs | fn a() { super::service::Desk::new() } | the room `line` may not know `service`
orders/line/throughput.rs | use super::super::service::Desk; | the room `line` may not know `service`
orders/error.rs | use super::{model::{self, Stage}, line::Line}; | the room `error` may not know `line`
orders/service.rs | use super::routes::Desk; | the room `service` may not know `routes`
orders/service.rs | use crate::http::Problem; | the room `service` may not know `http`
orders/line.rs | use crate::http; | the room `line` may not know `http`
orders/error.rs | use crate::storage::sqlite::Database; | the room `error` may not know `storage`
orders/routes.rs | use crate::storage::Pool; | the room `routes` may not know `storage`
orders/routes.rs | use super::line::Line; | the room `routes` may not know `line`
orders/routes.rs | use super::Orders; | `orders::Orders` is a re-export: name it by its room
orders/hold.rs | use crate::orders::{Orders}; | `orders::Orders` is a re-export: name it by its room
orders/service.rs | mod a { use super::super::Rules; } | `orders::Rules` is a re-export: name it by its room
orders/mod.rs | //! [`line`] [`hold`] [`metrics`]\n fn logic() {} | a desk's mod.rs has no logic
orders/mod.rs | //! [`line`] [`hold`]\n pub mod metrics; | the story does not announce the room `metrics`

orders/model.rs | use tokio::time::Instant; | the room `model` may not use `tokio::time::Instant`
orders/model.rs | use {std::fmt, std::fs::File}; | the room `model` may not use `std::fs::File`
orders/model.rs | fn a() { b(c, axum::serve()) } | the room `model` may not use `axum::serve`
orders/model.rs | fn a() { tracing::info!("") } | the room `model` may not use `tracing::info`
orders/model.rs | fn a() { Instant::now() } | the room `model` may not use `Instant::now`
orders/model.rs | fn a() { std::time::Instant::now() } | the room `model` may not use `std::time::Instant::now`
orders/model.rs | use serde::Serialize; use ::http::StatusCode; | the room `model` may not use `http::StatusCode`
orders/model.rs | async fn a() {} | the room `model` is never async
orders/line.rs | fn a() { b.await } | the room `line` is never await
orders/line.rs | use hyper::body; | the room `line` may not use `hyper::body`
orders/line.rs | use rusqlite::Connection; | the room `line` may not use `rusqlite::Connection`
orders/line/throughput.rs | use tracing::debug; | the room `line` may not use `tracing::debug`
orders/error.rs | fn a() -> http::StatusCode { b } | the room `error` may not use `http::StatusCode`
orders/error.rs | use axum::Json; | the room `error` may not use `axum::Json`
orders/service.rs | use axum::Json; | the room `service` may not use `axum::Json`
orders/service.rs | fn a() { select! { b = hyper::c() => {} } } | the room `service` may not use `hyper::c`
orders/hold.rs | use tower::Service; | the room `hold` may not use `tower::Service`
orders/routes.rs | use rusqlite::params; | the room `routes` may not use `rusqlite::params`

app.rs | use std::env; | only config reads the environment, not `std::env`
app.rs | fn a() { std::env::var("HOME") } | only config reads the environment, not `std::env::var`
app.rs | use config::{Config, Environment}; | only config reads the environment, not `config::Environment`
main.rs | use std::{env::args, io}; | only config reads the environment, not `std::env::args`
main.rs | struct A { #[arg(long, env = "B")] b: u8 } | only config reads the environment, not a command-line option
telemetry.rs | struct A { #[arg(long, env)] b: u8 } | only config reads the environment, not a command-line option
main.rs | use tokio::signal; | only shutdown listens for signals, not `tokio::signal`
main.rs | fn a() { tokio::signal::ctrl_c() } | only shutdown listens for signals, not `tokio::signal::ctrl_c`
orders/service.rs | use tokio::{sync, signal::unix}; | only shutdown listens for signals, not `tokio::signal::unix`
telemetry.rs | use signal_hook::flag; | only shutdown listens for signals, not `signal_hook::flag`

orders/hold.rs | use super::service::*; | a glob hides arrows from this check
orders/hold.rs | use tokio as quiet; | a crate under another name hides arrows from this check
orders/hold.rs | use tokio::{self as quiet}; | a crate under another name hides arrows from this check
orders/hold.rs | extern crate tokio; | extern crate hides arrows from this check
orders/hold.rs | #[path = "../elsewhere.rs"] mod a; | a module at another path hides arrows from this check
orders/hold.rs | fn a() { use super::service::*; } | a glob hides arrows from this check
"#;

#[test]
fn every_broken_rule_is_found_and_nothing_else() {
    let mut broken = 0;
    for line in BROKEN.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<_> = line.split(" | ").collect();
        let [file, text, fault] = parts[..] else {
            panic!("three parts: {line}")
        };
        let faults = faults_with(file, &text.replace("\\n", "\n"));
        let [only] = faults.as_slice() else {
            panic!("{line}\nhas these faults: {faults:#?}")
        };
        let here = only.starts_with(&format!("src/{file}:"));
        assert!(
            here && only.ends_with(fault),
            "{line}\nhas this fault: {only}"
        );
        broken += 1;
    }
    assert!(broken > 50, "the table was read: {broken}");
}

#[test]
fn a_room_that_nobody_planned_is_found_and_missed_in_the_story() {
    let faults = faults_with("orders/cellar.rs", "use super::model::Order;");
    assert_eq!(
        faults,
        [
            "src/orders/mod.rs:1: the story does not announce the room `cellar`",
            "src/orders/cellar.rs:1: the room `cellar` is in no table of tests/house.rs",
        ]
    );
}

#[test]
fn what_only_looks_like_a_fault_is_none() {
    for (file, text) in [
        ("app.rs", "const A: &str = std::env!(\"CARGO_PKG_NAME\");"),
        (
            "orders/model.rs",
            "fn a() { env!(\"X\"); matches!(b, std::fmt::Error) }",
        ),
        (
            "orders/model.rs",
            "/// Not tokio::net, nor\n/* axum::Json */ const A: &str = \"use hyper::body;\";",
        ),
        (
            "orders/hold.rs",
            "fn a() -> impl Future + use<> { super::service::b() }",
        ),
        (
            "orders/service.rs",
            "#[cfg(test)] use axum::Json; #[cfg(test)] mod a { use super::*; }",
        ),
    ] {
        assert_eq!(faults_with(file, text), [""; 0], "{file}: {text}");
    }
    let not_a_test = faults_with("orders/service.rs", "#[cfg(not(test))] use axum::Json;");
    assert_eq!(
        not_a_test,
        ["src/orders/service.rs:1: the room `service` may not use `axum::Json`"]
    );
}

#[test]
fn an_exception_that_is_no_longer_needed_is_found() {
    let faults = faults_with(
        "shutdown.rs",
        "use crate::orders::Orders; use crate::http::connection::Shutdown;",
    );
    assert_eq!(
        faults,
        ["src/shutdown.rs:1: the exception `shutdown` to `http::status` is no longer needed"]
    );
}

#[test]
fn a_fault_is_found_on_its_line() {
    let faults = faults_with(
        "orders/model.rs",
        "//! A story.\n\nuse std::fmt;\nuse tokio::{\n    net,\n    time,\n};\n",
    );
    let lines: Vec<_> = faults
        .iter()
        .map(|fault| fault.split(' ').next().unwrap())
        .collect();
    assert_eq!(lines, ["src/orders/model.rs:5:", "src/orders/model.rs:6:"]);
}
