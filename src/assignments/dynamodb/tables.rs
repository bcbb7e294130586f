//! Tables and what is in them, by their names.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableStatus,
};
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// The table of assignments, unless the configuration says otherwise.
pub const ASSIGNMENTS: &str = "DeliveryAssignments";
/// Its partition key, text.
pub const DRIVER_ID: &str = "driver_id";
/// Its sort key, text.
pub const PACKAGE_ID: &str = "package_id";
/// Its index: by [`PACKAGE_ID`], then [`DRIVER_ID`], with all attributes.
pub const BY_PACKAGE: &str = "by_package";

/// The table of who has which package on which day, unless the configuration says otherwise. Manifests are there, too.
pub const PACKAGES: &str = "DeliveryPackages";
/// Its partition key, text.
pub const SHARD: &str = "shard";
/// Its sort key, text.
pub const ITEM: &str = "item";

// Attributes of an assignment, beside its package's.
pub(super) const STATUS: &str = "status";
pub(super) const PREVIOUS_STATUS: &str = "previous_status";
pub(super) const DATE: &str = "date";
pub(super) const ASSIGNED_AT: &str = "assigned_at";
pub(super) const UPDATED_AT: &str = "updated_at";

// Attributes in the table of packages.
pub(super) const HELD: &str = "held";
pub(super) const TOKEN: &str = "token";
pub(super) const VERSION: &str = "version";
pub(super) const UPLOAD: &str = "upload";
pub(super) const PIECES: &str = "pieces";
pub(super) const BODY: &str = "body";

/// How long a new table may take until it can be used.
const CREATION: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The names of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Of assignments.
    pub assignments: String,
    /// Of who has which package on which day.
    pub packages: String,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            assignments: ASSIGNMENTS.to_owned(),
            packages: PACKAGES.to_owned(),
        }
    }
}

/// A table that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the table {table} could not be made: {cause}")]
pub struct NotProvisioned {
    /// Which.
    pub table: String,
    /// Why.
    pub cause: String,
}

/// Makes the tables that do not exist, and waits until they can be used. For emulators and development; elsewhere Terraform
/// makes them. One that exists is taken as it is.
///
/// # Errors
/// The first table that could not be made.
pub async fn provision(client: &Client, tables: &Tables) -> Result<(), NotProvisioned> {
    for (table, [partition, sort], index) in [
        (
            &tables.assignments,
            [DRIVER_ID, PACKAGE_ID],
            Some((BY_PACKAGE, [PACKAGE_ID, DRIVER_ID])),
        ),
        (&tables.packages, [SHARD, ITEM], None),
    ] {
        let failed = |cause: String| NotProvisioned {
            table: table.clone(),
            cause,
        };
        let mut creation = client
            .create_table()
            .table_name(table)
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
        until_active(client, table).await.map_err(failed)?;
    }
    Ok(())
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
        // It exists, or somebody else is just making it.
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
