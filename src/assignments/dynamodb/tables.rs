//! Names of tables and attributes.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::super::config::Config;
use crate::storage::aws::errors;
use crate::storage::preflight::{Engine, Probe, Verdict};

/// Default name of the table of assignments.
pub const ASSIGNMENTS: &str = "DeliveryAssignments";
/// Its partition key, text.
pub const DRIVER_ID: &str = "driver_id";
/// Its sort key, text.
pub const PACKAGE_ID: &str = "package_id";
/// Its index: by [`PACKAGE_ID`], then [`DRIVER_ID`], with all attributes.
pub const BY_PACKAGE: &str = "by_package";

/// Default name of the table of the days' packages and manifests.
pub const PACKAGES: &str = "DeliveryPackages";
/// Its partition key, text.
pub const SHARD: &str = "shard";
/// Its sort key, text.
pub const ITEM: &str = "item";

// Attributes of an assignment, in addition to its package's.
pub(super) const STATUS: &str = "status";
pub(super) const PREVIOUS_STATUS: &str = "previous_status";
pub(super) const DATE: &str = "date";
pub(super) const ASSIGNED_AT: &str = "assigned_at";
pub(super) const UPDATED_AT: &str = "updated_at";

pub(super) const HELD: &str = "held";
pub(super) const TOKEN: &str = "token";
pub(super) const VERSION: &str = "version";
pub(super) const UPLOAD: &str = "upload";
pub(super) const PIECES: &str = "pieces";
pub(super) const BODY: &str = "body";

/// Timeout until a new table is active.
const CREATION: Duration = Duration::from_secs(120);
/// Polling interval.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    pub assignments: String,
    /// Of the days' packages and manifests.
    pub packages: String,
}

impl From<&Config> for Tables {
    fn from(config: &Config) -> Self {
        Self {
            assignments: config.table.clone(),
            packages: config.packages_table.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the table {table} could not be created: {cause}")]
pub struct NotProvisioned {
    pub table: String,
    pub cause: String,
}

/// A table's required schema.
struct Wanted {
    /// The configuration key with its name.
    key: &'static str,
    table: String,
    /// Partition key and sort key, both text.
    keys: [&'static str; 2],
    /// An index with all attributes, and its keys.
    index: Option<(&'static str, [&'static str; 2])>,
}

impl Tables {
    fn wanted(&self) -> [Wanted; 2] {
        [
            Wanted {
                key: "assignments.table",
                table: self.assignments.clone(),
                keys: [DRIVER_ID, PACKAGE_ID],
                index: Some((BY_PACKAGE, [PACKAGE_ID, DRIVER_ID])),
            },
            Wanted {
                key: "assignments.packages_table",
                table: self.packages.clone(),
                keys: [SHARD, ITEM],
                index: None,
            },
        ]
    }
}

/// Creates missing tables, and waits until they are active. For emulators and development; elsewhere Terraform creates them. An
/// existing table is used as it is.
///
/// # Errors
/// The first table that could not be created.
pub async fn provision(client: &Client, tables: &Tables) -> Result<(), NotProvisioned> {
    for wanted in tables.wanted() {
        let Wanted {
            table,
            keys: [partition, sort],
            index,
            ..
        } = wanted;
        let failed = |cause: String| NotProvisioned {
            table: table.clone(),
            cause,
        };
        let mut creation = client
            .create_table()
            .table_name(&table)
            .billing_mode(BillingMode::PayPerRequest)
            .set_key_schema(Some(keys([partition, sort]).map_err(failed)?));
        for name in [partition, sort] {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build();
            creation = creation
                .attribute_definitions(attribute.map_err(|error| failed(error.to_string()))?);
        }
        if let Some((name, key)) = index {
            let index = GlobalSecondaryIndex::builder()
                .index_name(name)
                .set_key_schema(Some(keys(key).map_err(failed)?))
                .projection(
                    Projection::builder()
                        .projection_type(ProjectionType::All)
                        .build(),
                )
                .build();
            creation = creation
                .global_secondary_indexes(index.map_err(|error| failed(error.to_string()))?);
        }
        create(creation).await.map_err(failed)?;
        until_active(client, &table).await.map_err(failed)?;
    }
    Ok(())
}

/// Checks that the tables exist, with their keys and the index.
pub fn probe(client: Client, tables: &Tables) -> Probe {
    let keys = tables.wanted().map(|wanted| wanted.key.to_owned()).into();
    let tables = tables.clone();
    Probe::new(Engine::DynamoDb, keys, move || {
        let ([one, other], client) = (tables.wanted(), client.clone());
        async move {
            let (one, other) = tokio::join!(one.check(&client), other.check(&client));
            vec![one, other]
        }
    })
}

impl Wanted {
    async fn check(&self, client: &Client) -> Verdict {
        let table = &self.table;
        let described = client.describe_table().table_name(table);
        let mut verdict = match Box::pin(described.send()).await {
            Ok(answer) => self.compare(answer.table.as_ref()),
            Err(error) => errors::verdict(Engine::DynamoDb, &error),
        };
        verdict.detail = format!("{table}: {}", verdict.detail);
        verdict
    }

    fn compare(&self, found: Option<&TableDescription>) -> Verdict {
        let Some(found) = found else {
            return Verdict::failed("DynamoDB does not describe it");
        };
        match found.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) => {}
            status => return Verdict::failed(format!("it is {}", shown(status))),
        }
        let is_text = |name: &str| {
            let of_name = |defined: &&AttributeDefinition| defined.attribute_name() == name;
            let defined = found.attribute_definitions().iter().find(of_name);
            defined.is_some_and(|it| *it.attribute_type() == ScalarAttributeType::S)
        };
        if !(has_keys(found.key_schema(), self.keys) && self.keys.into_iter().all(is_text)) {
            let [partition, sort] = self.keys;
            return Verdict::failed(format!(
                "its keys must be `{partition}` (partition) and `{sort}` (sort), both of type S"
            ));
        }
        let Some((name, keys)) = self.index else {
            return Verdict::passed("active");
        };
        let indexes = found.global_secondary_indexes();
        let index = indexes.iter().find(|it| it.index_name() == Some(name));
        let all = |it: &Projection| it.projection_type() == Some(&ProjectionType::All);
        match index {
            Some(index)
                if !(has_keys(index.key_schema(), keys) && index.projection().is_some_and(all)) =>
            {
                let [partition, sort] = keys;
                Verdict::failed(format!(
                    "its index `{name}` must have the keys `{partition}` and `{sort}`, and all attributes"
                ))
            }
            Some(index) if index.index_status() == Some(&IndexStatus::Creating) => {
                Verdict::failed(format!("its index `{name}` is being created"))
            }
            Some(_) => Verdict::passed(format!("active, with its index `{name}`")),
            None => Verdict::failed(format!("it has no index `{name}`")),
        }
    }
}

fn shown(status: Option<&TableStatus>) -> &str {
    status.map_or("in no known state", TableStatus::as_str)
}

fn has_keys(schema: &[KeySchemaElement], [partition, sort]: [&str; 2]) -> bool {
    let is = |name: &str, kind: &KeyType| {
        let mut keys = schema.iter();
        keys.any(|key| key.attribute_name() == name && key.key_type() == kind)
    };
    schema.len() == 2 && is(partition, &KeyType::Hash) && is(sort, &KeyType::Range)
}

fn keys([partition, sort]: [&str; 2]) -> Result<Vec<KeySchemaElement>, String> {
    let key = |name: &str, key_type| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(key_type)
            .build()
            .map_err(|error| error.to_string())
    };
    Ok(vec![
        key(partition, KeyType::Hash)?,
        key(sort, KeyType::Range)?,
    ])
}

async fn create(creation: CreateTableFluentBuilder) -> Result<(), String> {
    match Box::pin(creation.send()).await {
        Ok(_) => Ok(()),
        // It exists, or another process is creating it.
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(DisplayErrorContext(&error).to_string()),
    }
}

async fn until_active(client: &Client, table: &str) -> Result<(), String> {
    let deadline = Instant::now() + CREATION;
    loop {
        let looked = Box::pin(client.describe_table().table_name(table).send()).await;
        let looked = looked.map_err(|error| DisplayErrorContext(&error).to_string())?;
        let active = |status: Option<&TableStatus>| status == Some(&TableStatus::Active);
        if looked
            .table()
            .is_some_and(|table| active(table.table_status()))
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("it does not become active".to_owned());
        }
        sleep(LOOK).await;
    }
}
