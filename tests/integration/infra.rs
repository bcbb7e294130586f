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

const LOG_PREFIX: &str = "logs/";
/// A policy each.
const ROLES: [&str; 4] = ["server", "dispatcher", "directory", "redrive"];

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

    /// Declares the attributes that AWS would return for resources of a kind, by their names in Terraform.
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

/// The ARN of a queue, by which policies name it.
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
    // Tags are not compared, and they need functions that are Terraform's own.
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
    for (workspace, prefix) in [("default", ""), ("prod", "prod-")] {
        let infra = Infra::of(workspace);
        let tables = infra.resources("aws_dynamodb_table");
        for (table, keys, index) in [
            ("assignments", [DRIVER_ID, PACKAGE_ID], true),
            ("packages", [SHARD, ITEM], false),
        ] {
            let name = match table {
                "assignments" => dynamodb::ASSIGNMENTS,
                _ => dynamodb::PACKAGES,
            };
            let table = &tables.as_object().unwrap()[table].as_object().unwrap();
            assert_eq!(table["name"], Value::from(format!("{prefix}{name}")));
            assert_eq!(
                ["hash_key", "range_key"].map(|key| table[key].as_str().unwrap()),
                keys
            );
            let attributes = keys.map(|name| hcl::value!({ name = name, type = "S" }));
            assert_eq!(table["attribute"], Value::from(attributes.to_vec()));
            assert_eq!(
                table["deletion_protection_enabled"],
                Value::Bool(workspace == "prod")
            );
            let indexes = table.get("global_secondary_index");
            let expected = index.then(|| {
                let key = |name: &str, kind: &str| hcl::value!({ attribute_name = name, key_type = kind });
                let keys = vec![key(PACKAGE_ID, "HASH"), key(DRIVER_ID, "RANGE")];
                hcl::value!([{ name = BY_PACKAGE, projection_type = "ALL", key_schema = keys }])
            });
            assert_eq!(indexes, expected.as_ref());
        }
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
    for role in ROLES {
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
    let infra = Infra::of("default");
    let allowed = ROLES.map(|role| infra.allowed(role));
    let allowed = allowed.iter().flat_map(BTreeMap::values).flatten();
    assert_eq!(needed, allowed.map(String::as_str).collect());
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
fn each_queue_receives_the_messages_of_its_topic_as_they_were_published() {
    let infra = Infra::of("dev");
    let subscriptions = infra.resources("aws_sns_topic_subscription");
    let subscriptions = subscriptions.as_object().unwrap()["couriers"]
        .as_object()
        .unwrap();
    for channel in ["events", "assignments"] {
        let expected = hcl::value!({
            topic_arn = (topic_arn(&format!("dev-{channel}-topic")))
            protocol = "sqs"
            endpoint = (queue_arn(&format!("dev-{channel}-queue")))
            raw_message_delivery = true
        });
        assert_eq!(subscriptions[channel], expected);
    }
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
