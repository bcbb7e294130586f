//! What `infra/` creates is what the server uses: names, keys, and the rights of its policies. `terraform fmt` gives the files
//! one form, so they are read as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use odyssey::assignments::dynamodb as tables;

use crate::shop::odyssey;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A policy each.
const ROLES: [&str; 4] = ["server", "dispatcher", "directory", "redrive"];
/// References in `iam.tf`, and the ARNs that the manual has in their place.
const ARNS: &str = r#"
    aws_dynamodb_table.assignments.arn = arn:aws:dynamodb:REGION:ACCOUNT:table/DeliveryAssignments
    aws_dynamodb_table.packages.arn = arn:aws:dynamodb:REGION:ACCOUNT:table/DeliveryPackages
    module.names.by_package = by_package
    module.names.log_prefix = logs/
    aws_s3_bucket.log.arn = arn:aws:s3:::BUCKET
    for topic in aws_sns_topic.couriers : topic.arn = arn:aws:sns:REGION:ACCOUNT:assignments-topic, arn:aws:sns:REGION:ACCOUNT:events-topic
    aws_sns_topic.couriers["events"].arn = arn:aws:sns:REGION:ACCOUNT:events-topic
    for queue in aws_sqs_queue.couriers : queue.arn = arn:aws:sqs:REGION:ACCOUNT:assignments-queue, arn:aws:sqs:REGION:ACCOUNT:events-queue
    aws_sqs_queue.couriers["assignments"].arn = arn:aws:sqs:REGION:ACCOUNT:assignments-queue
    aws_sqs_queue.couriers["events"].arn = arn:aws:sqs:REGION:ACCOUNT:events-queue
    aws_sqs_queue.dead_letters.arn = arn:aws:sqs:REGION:ACCOUNT:dead-letter-queue
"#;
/// Actions that need a right, except those that create: `aws.provision` is for emulators.
const ACTIONS: &str = "dynamodb:BatchGetItem dynamodb:BatchWriteItem dynamodb:ConditionCheckItem dynamodb:DeleteItem \
    dynamodb:DescribeTable dynamodb:GetItem dynamodb:PutItem dynamodb:Query dynamodb:Scan dynamodb:UpdateItem s3:DeleteObject \
    s3:GetObject s3:ListBucket s3:PutObject sns:GetTopicAttributes sns:Publish sqs:ChangeMessageVisibility sqs:DeleteMessage \
    sqs:GetQueueAttributes sqs:GetQueueUrl sqs:PurgeQueue sqs:ReceiveMessage sqs:SendMessage sqs:StartMessageMoveTask";

fn read(file: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(file));
    text.unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map(|(_, rest)| rest);
    let found = rest.and_then(|rest| rest.split_once(end));
    found.unwrap_or_else(|| panic!("no {start} in {text}")).0
}

/// Pairs of an action and what it may be done to.
type Rights = BTreeSet<(String, String)>;

fn allowed(role: &str) -> Rights {
    let mut text = read("infra/iam.tf");
    for (reference, arn) in ARNS
        .lines()
        .filter_map(|line| line.trim().split_once(" = "))
    {
        let inside = text.replace(&format!("${{{reference}}}"), arn);
        text = inside.replace(reference, arn);
    }
    let policy = format!("data \"aws_iam_policy_document\" \"{role}\" {{\n");
    let mut rights = Rights::new();
    for statement in between(&text, &policy, "\n}\n")
        .split("statement {")
        .skip(1)
    {
        let keys = statement.lines().filter_map(|line| line.split_once(" = "));
        let keys: Vec<_> = keys.map(|(key, _)| key.trim()).collect();
        assert_eq!(keys, ["sid", "actions", "resources"], "nothing inverts it");
        let actions = between(statement, "actions", "]\n").split('"');
        for action in actions.skip(1).step_by(2) {
            let resources = between(statement, "resources = [", "]\n").split(", ");
            let resources = resources.map(|resource| resource.trim_matches('"').to_owned());
            rights.extend(resources.map(|resource| (action.to_owned(), resource)));
        }
    }
    rights
}

/// What `docs/operating.md` allows a role.
fn documented(role: &str) -> Rights {
    let manual = read("docs/operating.md");
    let (_, policy) = manual.split_once(&format!("**{role}**")).unwrap();
    let policy = serde_json::from_str(between(policy, "```json\n", "```"));
    let policy: serde_json::Value = policy.unwrap();
    let mut rights = Rights::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let list = |key: &str| serde_json::from_value::<Vec<String>>(statement[key].clone());
        for action in list("Action").unwrap() {
            let resources = list("Resource").unwrap().into_iter();
            rights.extend(resources.map(|resource| (action.clone(), resource)));
        }
    }
    rights
}

#[test]
fn the_manual_shows_the_policies_that_terraform_makes() {
    for role in ROLES {
        assert_eq!(documented(role), allowed(role), "{role}");
    }
}

/// The sources below a folder that call AWS, without tests.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap();
    let texts = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap();
        if name.contains("/tests") || name.ends_with("/provision.rs") {
            return String::new();
        } else if path.is_dir() {
            return sources(&path);
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_client = ["aws_sdk_", "dynamodb", "queues"]
            .map(|word| text.contains(word) || name.contains(word));
        let code = text.split("#[cfg(test)]\nmod tests {").next();
        code.filter(|_| is_client.contains(&true))
            .unwrap_or_default()
            .to_owned()
    });
    texts.collect()
}

#[test]
fn what_the_sources_call_is_allowed_and_nothing_else() {
    let code = sources(&Path::new(ROOT).join("src"));
    // Both need this right.
    let code = code
        .replace(".list_objects_v2()", ".list_bucket()")
        .replace(".head_bucket()", ".list_bucket()");
    let needed = ACTIONS.split(' ').filter(|action| {
        let (_, name) = action.split_once(':').unwrap();
        let words = name.char_indices().map(|(at, letter)| match letter {
            'A'..='Z' if at > 0 => format!("_{}", letter.to_ascii_lowercase()),
            _ => letter.to_ascii_lowercase().to_string(),
        });
        let method: String = words.collect();
        // A batch needs what one message needs, a part of a transaction what one item needs.
        let part = name.trim_end_matches("Item");
        let calls = [
            format!(".{method}()"),
            format!(".{method}_batch()"),
            format!(" {part}::builder()"),
            format!("({part}::builder()"),
        ];
        calls.iter().any(|call| code.contains(call))
    });
    let allowed = ROLES.iter().flat_map(|role| allowed(role));
    assert_eq!(
        needed.map(str::to_owned).collect::<BTreeSet<_>>(),
        allowed.map(|(action, _)| action).collect()
    );
}

#[test]
fn the_tables_have_the_keys_and_the_index_that_the_code_uses() {
    let (names, dynamodb) = (read("infra/names/outputs.tf"), read("infra/dynamodb.tf"));
    for (table, name, keys) in [
        (
            "assignments",
            tables::ASSIGNMENTS,
            [tables::DRIVER_ID, tables::PACKAGE_ID],
        ),
        ("packages", tables::PACKAGES, [tables::SHARD, tables::ITEM]),
    ] {
        let output = between(&names, &format!("\"{table}_table\""), "}\n");
        assert!(
            output.contains(&format!("\"${{local.prefix}}{name}\"")),
            "{output}"
        );
        let resource = between(&dynamodb, &format!("\"{table}\" {{\n"), "\n}\n");
        assert!(
            resource.contains(&format!("= module.names.{table}_table\n")),
            "{resource}"
        );
        let found =
            ["hash_key     = \"", "range_key    = \""].map(|key| between(resource, key, "\""));
        assert_eq!(found, keys);
    }
    assert!(names.contains(&format!("\"{}\"", tables::BY_PACKAGE)));
    let index = dynamodb.split("attribute_name = ").skip(1);
    let index: Vec<_> = index.map(|key| between(key, "\"", "\"")).collect();
    assert_eq!(index, [tables::PACKAGE_ID, tables::DRIVER_ID]);
    assert!(dynamodb.contains("projection_type = \"ALL\"\n"));
}

#[test]
fn each_queue_gets_the_raw_messages_of_its_topic() {
    let sns = read("infra/sns.tf");
    for line in [
        "events      = { topic = module.names.events_topic, queue = module.names.events_queue }",
        "assignments = { topic = module.names.assignments_topic, queue = module.names.assignments_queue }",
        "topic_arn            = aws_sns_topic.couriers[each.key].arn",
        "protocol             = \"sqs\"",
        "endpoint             = aws_sqs_queue.couriers[each.key].arn",
        "raw_message_delivery = true",
    ] {
        assert!(sns.lines().any(|found| found.trim() == line), "{line}");
    }
}

/// It rejects unknown keys. A key names its resource: `EVENTS_QUEUE_URL` is of `aws_sqs_queue.couriers["events"]`.
#[test]
fn the_server_understands_the_environment_that_terraform_prints() {
    let outputs = read("infra/outputs.tf");
    let printed = between(&outputs, "<<-END\n", "  END\n");
    let printed = printed
        .lines()
        .map(|line| line.trim().split_once('=').unwrap());
    for (key, value) in printed.clone() {
        let value = value.replace("couriers[\"", "");
        let value = value.replace("letters", "letter");
        let parts: Vec<_> = value.split(['.', '"']).collect();
        if let Some((_, kind)) = parts[0].rsplit_once('_') {
            let stem = format!("{}_{kind}", parts[1]).to_uppercase();
            assert!(key.replace("__", "_").contains(&stem), "{key}={value}");
        }
    }
    let printed = printed.map(|(key, value)| match value.rsplit_once('.') {
        Some((_, "name}")) => (key, key.to_owned()),
        Some((_, "arn}")) => (key, format!("arn:aws:sns:eu-west-2:000000000000:{key}")),
        Some((_, "url}")) => (
            key,
            format!("https://sqs.eu-west-2.amazonaws.com/000000000000/{key}"),
        ),
        Some(_) => (key, "eu-west-2".to_owned()),
        None => (key, value.to_owned()),
    });
    let output = odyssey().arg("config").envs(printed).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn localstack_is_used_as_terraform_makes_it() {
    let variables = [read("infra/localstack.tfvars"), read("infra/variables.tf")];
    let suffix = between(&variables[0], "bucket_suffix = \"", "\"");
    let region = between(&variables[1], "default     = \"", "\"");
    let environment = read("infra/localstack.env");
    for line in [
        format!("OPLOG__BUCKET=odyssey-log-{suffix}\n"),
        format!("AWS_REGION={region}\n"),
    ] {
        assert!(environment.contains(&line), "{line}");
    }
}
