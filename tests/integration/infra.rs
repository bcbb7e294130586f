//! What `infra/` makes is what the code uses: the tables' names, keys and index, where the operational log goes, and what
//! the server may call.
//!
//! The HCL is evaluated as Terraform would do it, so that a name may be assembled from parts and is compared as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hcl::eval::{Context, Evaluate};
use hcl::{Block, Body, Map, Value};
use odyssey::assignments::dynamodb::{self, BY_PACKAGE, DRIVER_ID, ITEM, PACKAGE_ID, SHARD};

// --- What the code uses --------------------------------------------------------------------------------------------

const ASSIGNMENTS_TABLE: &str = dynamodb::ASSIGNMENTS;
const PACKAGES_TABLE: &str = dynamodb::PACKAGES;
const LOG_PREFIX: &str = "logs/";

// --- What it may call ----------------------------------------------------------------------------------------------

/// On both tables.
const ON_TABLES: &[&str] = &[
    "dynamodb:DeleteItem",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:Scan",
    "dynamodb:UpdateItem",
];
const ON_INDEX: &[&str] = &["dynamodb:Query"];
const ON_LOG: &[&str] = &["s3:PutObject"];

/// How a call looks in the sources, and the action that it needs. What creates tables and buckets, and looks whether they are
/// there, is not here: that is for emulators, which let anybody in.
const CALLS: &[(&str, &str)] = &[
    (".batch_get_item()", "dynamodb:BatchGetItem"),
    (".batch_write_item()", "dynamodb:BatchWriteItem"),
    (".delete_item()", "dynamodb:DeleteItem"),
    (".get_item()", "dynamodb:GetItem"),
    (".put_item()", "dynamodb:PutItem"),
    (".query()", "dynamodb:Query"),
    (".scan()", "dynamodb:Scan"),
    (".update_item()", "dynamodb:UpdateItem"),
    // Parts of a transaction.
    ("ConditionCheck::builder()", "dynamodb:ConditionCheckItem"),
    ("Delete::builder()", "dynamodb:DeleteItem"),
    ("Get::builder()", "dynamodb:GetItem"),
    ("Put::builder()", "dynamodb:PutItem"),
    ("Update::builder()", "dynamodb:UpdateItem"),
    (".create_multipart_upload()", "s3:PutObject"),
    (".delete_object()", "s3:DeleteObject"),
    (".get_object()", "s3:GetObject"),
    (".head_object()", "s3:GetObject"),
    (".list_objects_v2()", "s3:ListBucket"),
    (".put_object()", "s3:PutObject"),
];

// --- Reading -------------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a folder as one, which is how Terraform sees them.
fn folder(path: &str) -> Body {
    let files = files_below(&root().join(path), false);
    let files = files.iter().filter(|file| ends_with(file, "tf"));
    let text: String = files
        .map(|file| fs::read_to_string(file).unwrap() + "\n")
        .collect();
    assert!(!text.is_empty(), "there is Terraform in {path}/");
    hcl::parse(&text).unwrap_or_else(|error| panic!("{path}/*.tf: {error}"))
}

fn files_below(folder: &Path, deep: bool) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (folders, mut files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    if deep {
        files.extend(folders.iter().flat_map(|folder| files_below(folder, deep)));
    }
    files
}

fn ends_with(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

/// `infra/` in one of its workspaces.
struct Infra {
    body: Body,
    context: Context<'static>,
}

impl Infra {
    fn of(workspace: &str) -> Self {
        let mut infra = Self {
            body: folder("infra"),
            context: Context::new(),
        };
        let names = object([("names", names(workspace))]);
        infra.context.declare_var("module", names);
        let tables = infra.declare("aws_dynamodb_table", |table| {
            let name = infra.text(table, "name");
            object([("arn", format!("table/{name}"))])
        });
        let buckets = infra.declare("aws_s3_bucket", |bucket| {
            let name = infra.text(bucket, "bucket");
            object([("arn", format!("bucket/{name}")), ("id", name)])
        });
        infra.context.declare_var("aws_dynamodb_table", tables);
        infra.context.declare_var("aws_s3_bucket", buckets);
        infra
    }

    /// What Amazon would know of the resources of a kind, by their names in Terraform.
    fn declare(&self, kind: &str, known: impl Fn(&Body) -> Value) -> Value {
        let resources = self.blocks("resource", kind);
        let known =
            resources.map(|block| (block.labels()[1].as_str().to_owned(), known(&block.body)));
        Value::Object(known.collect())
    }

    fn blocks(&self, what: &'static str, kind: &str) -> impl Iterator<Item = &Block> {
        let is_meant = move |block: &&Block| {
            block.identifier() == what
                && block
                    .labels()
                    .first()
                    .is_some_and(|label| label.as_str() == kind)
        };
        self.body.blocks().filter(is_meant)
    }

    /// The one block of a kind that has this name in Terraform.
    fn block(&self, what: &'static str, kind: &str, name: &str) -> &Body {
        let mut blocks = self.blocks(what, kind);
        let block = blocks.find(|block| block.labels()[1].as_str() == name);
        block
            .unwrap_or_else(|| panic!("there is no {what} {kind}.{name}"))
            .body()
    }

    fn value(&self, body: &Body, key: &str) -> Value {
        evaluate(body, key, &self.context)
    }

    fn text(&self, body: &Body, key: &str) -> String {
        match self.value(body, key) {
            Value::String(text) => text,
            other => panic!("{key} is a text, not {other}"),
        }
    }

    fn texts(&self, body: &Body, key: &str) -> Vec<String> {
        match self.value(body, key) {
            Value::Array(values) => values
                .iter()
                .map(|value| value.as_str().unwrap().to_owned())
                .collect(),
            other => panic!("{key} is a list, not {other}"),
        }
    }

    /// The table that has this name at Amazon's.
    fn table(&self, name: &str) -> Table {
        let mut tables = self.blocks("resource", "aws_dynamodb_table");
        let body = tables
            .find(|table| self.text(table.body(), "name") == name)
            .unwrap_or_else(|| panic!("there is no table {name}"))
            .body();
        let attributes = inner(body, "attribute");
        Table {
            keys: ["hash_key", "range_key"].map(|key| self.text(body, key)),
            attributes: attributes
                .map(|attribute| (self.text(attribute, "name"), self.text(attribute, "type")))
                .collect(),
            indexes: inner(body, "global_secondary_index")
                .map(|index| self.index(index))
                .collect(),
            paid_per_request: self.text(body, "billing_mode") == "PAY_PER_REQUEST",
            recoverable: self.is_enabled(body, "point_in_time_recovery"),
            encrypted: self.is_enabled(body, "server_side_encryption"),
            protected: self.value(body, "deletion_protection_enabled") == Value::Bool(true),
        }
    }

    fn index(&self, body: &Body) -> Index {
        let keys = inner(body, "key_schema");
        Index {
            name: self.text(body, "name"),
            keys: keys
                .map(|key| (self.text(key, "key_type"), self.text(key, "attribute_name")))
                .collect(),
            projection: self.text(body, "projection_type"),
        }
    }

    fn is_enabled(&self, body: &Body, what: &str) -> bool {
        inner(body, what).any(|body| self.value(body, "enabled") == Value::Bool(true))
    }

    /// What the server's policy allows: actions by what they are done to.
    fn allowed(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut allowed = BTreeMap::<_, BTreeSet<_>>::new();
        let policy = self.block("data", "aws_iam_policy_document", "server");
        for statement in inner(policy, "statement") {
            let keys: Vec<_> = statement.attributes().map(hcl::Attribute::key).collect();
            assert_eq!(
                keys,
                ["sid", "actions", "resources"],
                "nothing that turns its sense around"
            );
            for resource in self.texts(statement, "resources") {
                allowed
                    .entry(resource)
                    .or_default()
                    .extend(self.texts(statement, "actions"));
            }
        }
        allowed
    }
}

/// What `infra/names` says in a workspace.
fn names(workspace: &str) -> Value {
    let body = folder("infra/names");
    let mut context = Context::new();
    context.declare_var(
        "var",
        object([("workspace", workspace), ("bucket_suffix", "acme")]),
    );
    let locals = body.blocks().filter(|block| block.identifier() == "locals");
    let locals: Map<String, Value> = locals
        .flat_map(|block| block.body().attributes())
        .map(|local| {
            (
                local.key().to_owned(),
                local.expr().evaluate(&context).unwrap(),
            )
        })
        .collect();
    context.declare_var("local", locals);
    let outputs = body.blocks().filter(|block| block.identifier() == "output");
    let names = outputs.map(|output| (output.labels()[0].as_str(), output.body()));
    // Nobody compares tags, and they need functions that are Terraform's own.
    let names = names.filter(|(name, _)| *name != "tags");
    object(names.map(|(name, body)| (name, evaluate(body, "value", &context))))
}

fn evaluate(body: &Body, key: &str, context: &Context<'_>) -> Value {
    let attribute = body.attributes().find(|attribute| attribute.key() == key);
    let attribute = attribute.unwrap_or_else(|| panic!("there is no {key} in {body:?}"));
    let value = attribute.expr().evaluate(context);
    value.unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn inner<'a>(body: &'a Body, what: &'a str) -> impl Iterator<Item = &'a Body> {
    let blocks = body
        .blocks()
        .filter(move |block| block.identifier() == what);
    blocks.map(Block::body)
}

fn object<'a, V: Into<Value>>(entries: impl IntoIterator<Item = (&'a str, V)>) -> Value {
    let entries = entries.into_iter();
    Value::Object(
        entries
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect(),
    )
}

#[derive(Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four properties of a table that do not hang together"
)]
struct Table {
    /// Partition and sort key.
    keys: [String; 2],
    /// Types by names.
    attributes: BTreeMap<String, String>,
    indexes: Vec<Index>,
    paid_per_request: bool,
    recoverable: bool,
    encrypted: bool,
    protected: bool,
}

impl Table {
    /// As every table is: its keys are texts, and nothing else has a type.
    fn by(partition: &str, sort: &str) -> Self {
        let keys = [partition, sort].map(str::to_owned);
        Self {
            attributes: keys
                .iter()
                .map(|key| (key.clone(), "S".to_owned()))
                .collect(),
            keys,
            indexes: Vec::new(),
            paid_per_request: true,
            recoverable: true,
            encrypted: true,
            protected: false,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Index {
    name: String,
    /// Names by what kind of key they are.
    keys: BTreeMap<String, String>,
    projection: String,
}

/// `KEY=value` lines, as in an environment file, or `key = "value"`, as in Terraform's.
fn settings(file: &str) -> BTreeMap<String, String> {
    let text =
        fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let settings = lines.filter_map(|line| line.split_once('='));
    settings
        .map(|(key, value)| {
            (
                key.trim().to_owned(),
                value.trim().trim_matches('"').to_owned(),
            )
        })
        .collect()
}

/// The actions that are needed for what stands in a source, tests aside.
fn called(source: &str) -> BTreeSet<&'static str> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let stands = |call: &str| {
        let mut places = source.match_indices(call);
        // `Put::builder()` is none of `Output::builder()`.
        places
            .any(|(at, _)| call.starts_with('.') || !source[..at].ends_with(char::is_alphanumeric))
    };
    let calls = CALLS.iter().filter(|(call, _)| stands(call));
    calls.map(|(_, action)| *action).collect()
}

// --- The tests -----------------------------------------------------------------------------------------------------

#[test]
fn the_tables_have_the_keys_and_the_index_that_the_code_uses() {
    let infra = Infra::of("default");
    let assignments = Table {
        indexes: vec![Index {
            name: BY_PACKAGE.to_owned(),
            keys: [("HASH", PACKAGE_ID), ("RANGE", DRIVER_ID)]
                .map(|(kind, name)| (kind.to_owned(), name.to_owned()))
                .into(),
            projection: "ALL".to_owned(),
        }],
        ..Table::by(DRIVER_ID, PACKAGE_ID)
    };
    assert_eq!(infra.table(ASSIGNMENTS_TABLE), assignments);
    assert_eq!(infra.table(PACKAGES_TABLE), Table::by(SHARD, ITEM));
}

#[test]
fn the_tables_of_a_workspace_have_its_name_before_theirs_and_those_of_prod_cannot_be_deleted() {
    for workspace in ["dev", "test", "prod"] {
        let infra = Infra::of(workspace);
        for table in [ASSIGNMENTS_TABLE, PACKAGES_TABLE] {
            let table = infra.table(&format!("{workspace}-{table}"));
            assert_eq!(table.protected, workspace == "prod", "{workspace}");
        }
    }
}

#[test]
fn the_server_may_do_what_it_does_and_nothing_else() {
    for (workspace, prefix) in [("default", ""), ("prod", "prod-")] {
        let expected = [
            (format!("table/{prefix}{ASSIGNMENTS_TABLE}"), ON_TABLES),
            (format!("table/{prefix}{PACKAGES_TABLE}"), ON_TABLES),
            (
                format!("table/{prefix}{ASSIGNMENTS_TABLE}/index/{BY_PACKAGE}"),
                ON_INDEX,
            ),
            (
                format!("bucket/{prefix}odyssey-log-acme/{LOG_PREFIX}*"),
                ON_LOG,
            ),
        ];
        let expected: BTreeMap<_, BTreeSet<_>> = expected
            .into_iter()
            .map(|(what, actions)| {
                (
                    what,
                    actions.iter().map(|action| (*action).to_owned()).collect(),
                )
            })
            .collect();
        assert_eq!(Infra::of(workspace).allowed(), expected, "{workspace}");
    }
}

#[test]
fn what_the_sources_call_is_allowed_and_nothing_else() {
    let mut needed = BTreeSet::new();
    let files = files_below(&root().join("src"), true).into_iter();
    let is_test = |file: &PathBuf| file.to_string_lossy().contains("/tests");
    for file in files.filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        if text.contains("aws_sdk_") || file.to_string_lossy().contains("dynamodb") {
            needed.extend(called(&text));
        }
    }
    let allowed = [ON_TABLES, ON_INDEX, ON_LOG].into_iter().flatten();
    assert_eq!(needed, allowed.copied().collect());
}

#[test]
fn a_call_is_known_by_what_it_needs() {
    let source = "client.put_item().table_name(t); iter.scan(0, f); Output::builder(); types::Delete::builder()
#[cfg(test)]\nmod tests { client.get_object() }";
    assert_eq!(
        called(source).into_iter().collect::<Vec<_>>(),
        ["dynamodb:DeleteItem", "dynamodb:PutItem"]
    );
}

#[test]
fn what_happens_to_the_log_happens_where_the_server_writes_it() {
    let infra = Infra::of("default");
    let lifecycle = infra.block("resource", "aws_s3_bucket_lifecycle_configuration", "log");
    let filters: Vec<_> = inner(lifecycle, "rule")
        .flat_map(|rule| inner(rule, "filter"))
        .map(|filter| infra.text(filter, "prefix"))
        .collect();
    assert_eq!(filters, [LOG_PREFIX, LOG_PREFIX], "of two rules");
}

#[test]
fn localstack_is_used_as_terraform_makes_it() {
    let environment = settings("infra/localstack.env");
    let variables = settings("infra/localstack.tfvars");
    let bucket = format!("odyssey-log-{}", variables["bucket_suffix"]);
    assert_eq!(environment["ODYSSEY_OPLOG__BUCKET"], bucket);
    let infra = Infra::of("default");
    let region = infra.blocks("variable", "region").next().unwrap();
    assert_eq!(
        environment["AWS_REGION"],
        infra.text(region.body(), "default")
    );
}
