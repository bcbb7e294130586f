//! What `infra/` makes is what the code uses: the tables' names, keys and index, where the operational log goes, the
//! couriers' topics and queues, and what the server may call.
//!
//! The HCL is evaluated as Terraform would do it, so that a name may be assembled from parts and is compared as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hcl::eval::{Context, Evaluate, FuncDef, ParamType};
use hcl::{Block, Body, Map, Value};
use odyssey::assignments::dynamodb::{self, BY_PACKAGE, DRIVER_ID, ITEM, PACKAGE_ID, SHARD};

use crate::shop::odyssey;

// --- What the code uses --------------------------------------------------------------------------------------------

const ASSIGNMENTS_TABLE: &str = dynamodb::ASSIGNMENTS;
const PACKAGES_TABLE: &str = dynamodb::PACKAGES;
const LOG_PREFIX: &str = "logs/";
const EVENTS_TOPIC: &str = "events-topic";
const EVENTS_QUEUE: &str = "events-queue";
const ASSIGNMENTS_TOPIC: &str = "assignments-topic";
const ASSIGNMENTS_QUEUE: &str = "assignments-queue";
const DEAD_LETTER_QUEUE: &str = "dead-letter-queue";
/// The couriers' channels: as Terraform calls each, its topic and its queue.
const CHANNELS: [(&str, &str, &str); 2] = [
    ("events", EVENTS_TOPIC, EVENTS_QUEUE),
    ("assignments", ASSIGNMENTS_TOPIC, ASSIGNMENTS_QUEUE),
];

// --- What it may call ----------------------------------------------------------------------------------------------

/// On both tables.
const ON_TABLES: &[&str] = &[
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:Scan",
    "dynamodb:UpdateItem",
];
const ON_INDEX: &[&str] = &["dynamodb:Query"];
const ON_LOG: &[&str] = &["s3:PutObject"];
const ON_BUCKET: &[&str] = &["s3:ListBucket"];
/// On the queue that a role of the couriers reads.
const ON_READ: &[&str] = &[
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
];
/// On the topic that a role of the couriers tells.
const ON_TOLD: &[&str] = &["sns:GetTopicAttributes", "sns:Publish"];
/// On the queue into which goes what was not understood.
const ON_FILLED: &[&str] = &["sqs:GetQueueAttributes", "sqs:SendMessage"];
/// On the queue from which messages are brought back; it is looked for by its name where no URL is configured.
const ON_EMPTIED: &[&str] = &[
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
];
/// On the queues to which they go back.
const ON_REFILLED: &[&str] = &["sqs:GetQueueUrl", "sqs:SendMessage"];
/// Everything above.
const ALLOWED: [&[&str]; 9] = [
    ON_TABLES,
    ON_INDEX,
    ON_LOG,
    ON_BUCKET,
    ON_READ,
    ON_TOLD,
    ON_FILLED,
    ON_EMPTIED,
    ON_REFILLED,
];

/// How a call looks in the sources, and the action that it needs. Calls that create tables, buckets, topics and queues are not
/// here: `aws.provision` is for emulators, which need no rights.
const CALLS: &[(&str, &str)] = &[
    (".batch_get_item()", "dynamodb:BatchGetItem"),
    (".batch_write_item()", "dynamodb:BatchWriteItem"),
    (".delete_item()", "dynamodb:DeleteItem"),
    (".describe_table()", "dynamodb:DescribeTable"),
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
    (".head_bucket()", "s3:ListBucket"),
    (".head_object()", "s3:GetObject"),
    (".list_objects_v2()", "s3:ListBucket"),
    (".put_object()", "s3:PutObject"),
    (".get_topic_attributes()", "sns:GetTopicAttributes"),
    (".publish()", "sns:Publish"),
    (".publish_batch()", "sns:Publish"),
    // A batch needs what one message needs.
    (
        ".change_message_visibility()",
        "sqs:ChangeMessageVisibility",
    ),
    (
        ".change_message_visibility_batch()",
        "sqs:ChangeMessageVisibility",
    ),
    (".delete_message()", "sqs:DeleteMessage"),
    (".delete_message_batch()", "sqs:DeleteMessage"),
    (".get_queue_attributes()", "sqs:GetQueueAttributes"),
    (".get_queue_url()", "sqs:GetQueueUrl"),
    (".purge_queue()", "sqs:PurgeQueue"),
    (".receive_message()", "sqs:ReceiveMessage"),
    (".send_message()", "sqs:SendMessage"),
    (".send_message_batch()", "sqs:SendMessage"),
    (".start_message_move_task()", "sqs:StartMessageMoveTask"),
];

/// Sources that create and nothing else, with calls that others may make too.
const PROVISIONING: &str = "provision.rs";

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
#[derive(Clone)]
struct Infra {
    body: Body,
    context: Context<'static>,
}

impl Infra {
    fn of(workspace: &str) -> Self {
        let mut context = Context::new();
        // What is said in JSON is compared as what it says.
        let jsonencode = FuncDef::builder().param(ParamType::Any);
        let jsonencode = jsonencode.build(|arguments| Ok(arguments[0].clone()));
        context.declare_func("jsonencode", jsonencode);
        context.declare_var("module", object([("names", names(workspace))]));
        let mut infra = Self {
            body: folder("infra"),
            context,
        };
        let variables = infra.body.blocks();
        let variables = variables.filter(|block| block.identifier() == "variable");
        let defaults = variables
            .filter(|block| block.body.attributes().any(|it| it.key() == "default"))
            .map(|block| {
                (
                    block.labels()[0].as_str(),
                    infra.value(&block.body, "default"),
                )
            });
        let defaults = object(defaults);
        infra.context.declare_var("var", defaults);
        let locals = locals(&infra.body, &infra.context);
        infra.context.declare_var("local", locals);
        infra.declare("aws_dynamodb_table", |infra, table| {
            let name = infra.text(table, "name");
            object([("arn", format!("table/{name}")), ("name", name)])
        });
        infra.declare("aws_s3_bucket", |infra, bucket| {
            let name = infra.text(bucket, "bucket");
            object([
                ("arn", format!("bucket/{name}")),
                ("id", name.clone()),
                ("bucket", name),
            ])
        });
        infra.declare("aws_sns_topic", |infra, topic| {
            let name = infra.text(topic, "name");
            object([("arn", topic_arn(&name))])
        });
        infra.declare("aws_sqs_queue", |infra, queue| {
            let name = infra.text(queue, "name");
            object([("arn", queue_arn(&name)), ("url", queue_url(&name))])
        });
        // A policy is compared by its statements.
        let documents = infra.each("data", "aws_iam_policy_document", |infra, document| {
            object([("json", infra.whole(document))])
        });
        let documents = object([("aws_iam_policy_document", documents)]);
        infra.context.declare_var("data", documents);
        infra
    }

    /// Tells what Amazon would know of the resources of a kind, by their names in Terraform.
    fn declare(&mut self, kind: &str, known: impl Fn(&Self, &Body) -> Value) {
        let known = self.each("resource", kind, known);
        self.context.declare_var(kind, known);
    }

    /// Something of each block of a kind, by its name in Terraform; with `for_each`, by its keys within that.
    fn each(&self, what: &'static str, kind: &str, of: impl Fn(&Self, &Body) -> Value) -> Value {
        let blocks = self.blocks(what, kind).map(|block| {
            let body = block.body();
            let of_it = match body.attributes().find(|it| it.key() == "for_each") {
                None => of(self, body),
                Some(for_each) => match for_each.expr().evaluate(&self.context).unwrap() {
                    Value::Object(entries) => object(entries.iter().map(|(key, value)| {
                        let each = [("key", key.as_str().into()), ("value", value.clone())];
                        let mut one = self.clone();
                        one.context.declare_var("each", object(each));
                        (key.as_str(), of(&one, body))
                    })),
                    other => panic!("for_each is an object, not {other}"),
                },
            };
            (block.labels()[1].as_str(), of_it)
        });
        object(blocks)
    }

    /// All resources of a kind with all that is said of them, by their names in Terraform.
    fn resources(&self, kind: &str) -> Value {
        self.each("resource", kind, Self::whole)
    }

    /// All that a block says: its attributes, and lists of its inner blocks by what they are.
    fn whole(&self, body: &Body) -> Value {
        let mut whole = Map::new();
        // How many there are, and in which order they are made, is Terraform's own.
        let said = body.attributes().map(hcl::Attribute::key);
        for key in said.filter(|key| !["for_each", "depends_on"].contains(key)) {
            whole.insert(key.to_owned(), self.value(body, key));
        }
        for block in body.blocks() {
            let list = whole
                .entry(block.identifier().to_owned())
                .or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().unwrap().push(self.whole(block.body()));
        }
        Value::Object(whole)
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

    /// What the policy of a role allows: actions by what they are done to.
    fn allowed(&self, role: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut allowed = BTreeMap::<_, BTreeSet<_>>::new();
        let policy = self.block("data", "aws_iam_policy_document", role);
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

/// What Amazon calls a topic.
fn topic_arn(name: &str) -> String {
    format!("arn:aws:sns:eu-west-2:000000000000:{name}")
}

/// What Amazon calls a queue where somebody may use it.
fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:eu-west-2:000000000000:{name}")
}

/// What Amazon calls a queue where it is used.
fn queue_url(name: &str) -> String {
    format!("https://sqs.eu-west-2.amazonaws.com/000000000000/{name}")
}

/// What `infra/names` says in a workspace.
fn names(workspace: &str) -> Value {
    let body = folder("infra/names");
    let mut context = Context::new();
    context.declare_var(
        "var",
        object([("workspace", workspace), ("bucket_suffix", "acme")]),
    );
    let locals = locals(&body, &context);
    context.declare_var("local", locals);
    let outputs = body.blocks().filter(|block| block.identifier() == "output");
    let names = outputs.map(|output| (output.labels()[0].as_str(), output.body()));
    // Nobody compares tags, and they need functions that are Terraform's own.
    let names = names.filter(|(name, _)| *name != "tags");
    object(names.map(|(name, body)| (name, evaluate(body, "value", &context))))
}

/// The locals of a folder, none of which needs another.
fn locals(body: &Body, context: &Context<'_>) -> Value {
    let blocks = body.blocks().filter(|block| block.identifier() == "locals");
    let locals = blocks.flat_map(|block| block.body().attributes());
    object(locals.map(|local| (local.key(), local.expr().evaluate(context).unwrap())))
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

/// As what a policy allows is compared.
fn actions<'a>(
    allowed: impl IntoIterator<Item = (String, &'a [&'a str])>,
) -> BTreeMap<String, BTreeSet<String>> {
    let texts = |actions: &[&str]| actions.iter().map(|&action| action.to_owned()).collect();
    let allowed = allowed.into_iter();
    allowed
        .map(|(what, actions)| (what, texts(actions)))
        .collect()
}

/// Something of each channel, by its name in Terraform.
fn channels(of: impl Fn(&str, &str) -> Value) -> Value {
    object(CHANNELS.map(|(channel, topic, queue)| (channel, of(topic, queue))))
}

/// Who is refused, and what, at a topic or a queue: everybody without TLS.
fn over_tls_only(actions: &str, arn: &str) -> Value {
    hcl::value!({
        sid = "OverTlsOnly"
        effect = "Deny"
        actions = [actions]
        resources = [arn]
        principals = [{ type = "*", identifiers = ["*"] }]
        condition = [{ test = "Bool", variable = "aws:SecureTransport", values = ["false"] }]
    })
}

/// What is said of every queue of the couriers.
fn queue(name: &str) -> Map<String, Value> {
    let queue = hcl::value!({
        name = name
        visibility_timeout_seconds = 30
        receive_wait_time_seconds = 20
        message_retention_seconds = 1_209_600
        sqs_managed_sse_enabled = true
    });
    queue.as_object().unwrap().clone()
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
        let expected = actions([
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
            (format!("bucket/{prefix}odyssey-log-acme"), ON_BUCKET),
        ]);
        assert_eq!(
            Infra::of(workspace).allowed("server"),
            expected,
            "{workspace}"
        );
    }
}

#[test]
fn each_role_of_the_couriers_may_do_what_it_does_and_nothing_else() {
    for (workspace, prefix) in [("default", ""), ("prod", "prod-")] {
        let infra = Infra::of(workspace);
        let topic = |name| topic_arn(&format!("{prefix}{name}"));
        let queue = |name| queue_arn(&format!("{prefix}{name}"));
        let roles = [
            (
                "dispatcher",
                vec![
                    (queue(EVENTS_QUEUE), ON_READ),
                    (topic(ASSIGNMENTS_TOPIC), ON_TOLD),
                    (topic(EVENTS_TOPIC), ON_TOLD),
                    (queue(DEAD_LETTER_QUEUE), ON_FILLED),
                ],
            ),
            (
                "directory",
                vec![
                    (queue(ASSIGNMENTS_QUEUE), ON_READ),
                    (topic(EVENTS_TOPIC), ON_TOLD),
                    (queue(DEAD_LETTER_QUEUE), ON_FILLED),
                ],
            ),
            (
                "redrive",
                vec![
                    (queue(DEAD_LETTER_QUEUE), ON_EMPTIED),
                    (queue(EVENTS_QUEUE), ON_REFILLED),
                    (queue(ASSIGNMENTS_QUEUE), ON_REFILLED),
                ],
            ),
        ];
        for (role, expected) in roles {
            assert_eq!(
                infra.allowed(role),
                actions(expected),
                "{role}, {workspace}"
            );
        }
    }
}

#[test]
fn each_role_has_the_policy_of_its_name() {
    for (workspace, prefix) in [("default", ""), ("prod", "prod-")] {
        let infra = Infra::of(workspace);
        let policies = infra.each("resource", "aws_iam_policy", |infra, policy| {
            object(["name", "policy"].map(|key| (key, infra.value(policy, key))))
        });
        let roles = ["server", "dispatcher", "directory", "redrive"].map(|role| {
            let name = format!("{prefix}odyssey-{role}");
            let document = infra.block("data", "aws_iam_policy_document", role);
            let policy = object([("name", name.into()), ("policy", infra.whole(document))]);
            (role, policy)
        });
        assert_eq!(policies, object(roles), "{workspace}");
    }
}

/// What `docs/operating.md` allows a role, in the form of [`Infra::allowed`].
fn documented(role: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let text = text
        .replace("arn:aws:dynamodb:REGION:ACCOUNT:", "")
        .replace("arn:aws:s3:::BUCKET", "bucket/odyssey-log-acme")
        .replace("REGION", "eu-west-2")
        .replace("ACCOUNT", "000000000000");
    let (_, policy) = text
        .split_once(&format!("**{role}**"))
        .unwrap_or_else(|| panic!("no policy for {role}"));
    let (_, policy) = policy.split_once("```json\n").unwrap();
    let (policy, _) = policy.split_once("```").unwrap();
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let texts = |value: &serde_json::Value| -> BTreeSet<String> {
        serde_json::from_value(value.clone()).unwrap()
    };
    let mut allowed = BTreeMap::<_, BTreeSet<_>>::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for resource in texts(&statement["Resource"]) {
            let actions = allowed.entry(resource).or_default();
            actions.extend(texts(&statement["Action"]));
        }
    }
    allowed
}

#[test]
fn the_manual_shows_the_policies_that_terraform_makes() {
    let infra = Infra::of("default");
    for role in ["server", "dispatcher", "directory", "redrive"] {
        assert_eq!(documented(role), infra.allowed(role), "{role}");
    }
}

#[test]
fn what_the_sources_call_is_allowed_and_nothing_else() {
    let mut needed = BTreeSet::new();
    let files = files_below(&root().join("src"), true).into_iter();
    let is_other =
        |file: &PathBuf| file.to_string_lossy().contains("/tests") || file.ends_with(PROVISIONING);
    for file in files.filter(|file| !is_other(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.to_string_lossy();
        if text.contains("aws_sdk_") || path.contains("dynamodb") || path.contains("queues") {
            needed.extend(called(&text));
        }
    }
    assert_eq!(needed, ALLOWED.into_iter().flatten().copied().collect());
}

#[test]
fn a_call_is_known_by_what_it_needs() {
    let source = "client.put_item().table_name(t); iter.scan(0, f); Output::builder(); types::Delete::builder();
        sqs\n    .delete_message_batch()\n    .queue_url(url); self.publish(message)
#[cfg(test)]\nmod tests { client.get_object() }";
    assert_eq!(
        called(source).into_iter().collect::<Vec<_>>(),
        [
            "dynamodb:DeleteItem",
            "dynamodb:PutItem",
            "sqs:DeleteMessage"
        ]
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

#[test]
fn localstack_has_the_services_that_terraform_asks() {
    let infra = Infra::of("default");
    let provider = infra.blocks("provider", "aws").next().unwrap();
    let endpoints = inner(provider.body(), "dynamic").flat_map(|it| inner(it, "content"));
    let asked: BTreeSet<_> = endpoints
        .flat_map(Body::attributes)
        .map(hcl::Attribute::key)
        .collect();
    assert!(asked.contains("sns"), "{asked:?}");
    for file in ["docker-compose.yml", ".github/workflows/ci.yml"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let mut lines = text.lines().map(str::trim);
        let services = lines.find_map(|line| line.strip_prefix("SERVICES: "));
        let services: BTreeSet<_> = services.unwrap().split(',').collect();
        assert!(asked.is_subset(&services), "{file}: {services:?}");
    }
}

#[test]
fn each_queue_gets_what_its_topic_is_told_as_it_was_published() {
    for (workspace, prefix) in [("default", ""), ("dev", "dev-")] {
        let infra = Infra::of(workspace);
        let topics = channels(|topic, _| {
            let name = format!("{prefix}{topic}");
            hcl::value!({ name = name, kms_master_key_id = "alias/aws/sns" })
        });
        let topics = object([("couriers", topics)]);
        assert_eq!(infra.resources("aws_sns_topic"), topics, "{workspace}");
        let subscriptions = channels(|topic, queue| {
            let topic = topic_arn(&format!("{prefix}{topic}"));
            let queue = queue_arn(&format!("{prefix}{queue}"));
            hcl::value!({
                topic_arn = topic
                protocol = "sqs"
                endpoint = queue
                raw_message_delivery = true
            })
        });
        let subscriptions = object([("couriers", subscriptions)]);
        let made = infra.resources("aws_sns_topic_subscription");
        assert_eq!(made, subscriptions, "{workspace}");
    }
}

#[test]
fn the_queues_keep_messages_as_long_as_sqs_can_and_it_moves_them_as_late_as_it_can() {
    for (workspace, prefix) in [("default", ""), ("prod", "prod-")] {
        let infra = Infra::of(workspace);
        let dead_letters = format!("{prefix}{DEAD_LETTER_QUEUE}");
        let arn = queue_arn(&dead_letters);
        let redrive = hcl::value!({ deadLetterTargetArn = arn, maxReceiveCount = 1000 });
        let queues = channels(|_, name| {
            let mut queue = queue(&format!("{prefix}{name}"));
            queue.insert("redrive_policy".to_owned(), redrive.clone());
            Value::Object(queue)
        });
        let queues = object([
            ("couriers", queues),
            ("dead_letters", Value::Object(queue(&dead_letters))),
        ]);
        assert_eq!(infra.resources("aws_sqs_queue"), queues, "{workspace}");

        let url = queue_url(&dead_letters);
        let sources = CHANNELS.map(|(_, _, queue)| queue_arn(&format!("{prefix}{queue}")));
        let permission = hcl::value!({
            queue_url = url
            redrive_allow_policy = {
                redrivePermission = "byQueue"
                sourceQueueArns = (sources.to_vec())
            }
        });
        let made = infra.resources("aws_sqs_queue_redrive_allow_policy");
        let permission = object([("dead_letters", permission)]);
        assert_eq!(made, permission, "{workspace}");
    }
}

#[test]
fn its_topic_is_let_into_a_queue_and_nobody_is_without_tls() {
    let infra = Infra::of("default");
    let topics = channels(|topic, _| {
        let arn = topic_arn(topic);
        let policy = object([("statement", vec![over_tls_only("sns:Publish", &arn)])]);
        object([("arn", arn.into()), ("policy", policy)])
    });
    let topics = object([("couriers", topics)]);
    assert_eq!(infra.resources("aws_sns_topic_policy"), topics);

    let policy = |name: &str, statements: Vec<Value>| {
        let policy = object([("statement", statements)]);
        object([("queue_url", queue_url(name).into()), ("policy", policy)])
    };
    let queues = channels(|topic, name| {
        let (topic, queue) = (topic_arn(topic), queue_arn(name));
        let over_tls_only = over_tls_only("sqs:*", &queue);
        let from_its_topic = hcl::value!({
            sid = "FromItsTopic"
            actions = ["sqs:SendMessage"]
            resources = [queue]
            principals = [{ type = "Service", identifiers = ["sns.amazonaws.com"] }]
            condition = [{ test = "ArnEquals", variable = "aws:SourceArn", values = [topic] }]
        });
        policy(name, vec![from_its_topic, over_tls_only])
    });
    let over_tls_only = over_tls_only("sqs:*", &queue_arn(DEAD_LETTER_QUEUE));
    let dead_letters = policy(DEAD_LETTER_QUEUE, vec![over_tls_only]);
    let queues = object([("couriers", queues), ("dead_letters", dead_letters)]);
    assert_eq!(infra.resources("aws_sqs_queue_policy"), queues);
}

#[test]
fn the_server_understands_the_environment_that_terraform_prints() {
    let infra = Infra::of("prod");
    let environment = infra.blocks("output", "environment").next().unwrap();
    let printed = infra.text(environment.body(), "value");
    let printed: BTreeMap<_, _> = printed
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .collect();
    for (key, value) in [
        ("EVENTS", "sqs".to_owned()),
        ("EVENTS_TOPIC_ARN", topic_arn("prod-events-topic")),
        ("EVENTS_QUEUE_URL", queue_url("prod-events-queue")),
        ("ASSIGNMENTS_TOPIC_ARN", topic_arn("prod-assignments-topic")),
        ("ASSIGNMENTS_QUEUE_URL", queue_url("prod-assignments-queue")),
        ("DEAD_LETTER_QUEUE_URL", queue_url("prod-dead-letter-queue")),
    ] {
        let key = format!("ODYSSEY_COURIERS__{key}");
        assert_eq!(printed[key.as_str()], value, "{key}");
    }
    // It refuses keys that it does not know.
    let output = odyssey().arg("config").envs(printed).output().unwrap();
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{refusal}");
}
