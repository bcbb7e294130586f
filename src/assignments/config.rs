//! The section `assignments`.

use std::path::PathBuf;
use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{WITHOUT_AWS, refuse_if, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    #[garde(custom(refuse_if(cfg!(not(feature = "aws")) && self.store == StoreKind::DynamoDb, WITHOUT_AWS)))]
    pub store: StoreKind,
    #[garde(custom(refuse_if(!is_table(&self.table), TABLE)))]
    pub table: String,
    #[garde(custom(refuse_if(!is_table(&self.packages_table), TABLE)))]
    pub packages_table: String,
    /// Loaded at the start; empty: none.
    pub manifest: PathBuf,
    #[garde(custom(within(1024, 1 << 30)))]
    pub manifest_max_bytes: usize,
    #[serde(with = "text")]
    #[garde(custom(within("1s", "1h")))]
    pub manifest_timeout: Duration,
    pub strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Sqlite,
    DynamoDb,
}

const TABLE: &str = "it must be 3 to 255 letters, digits, _ . or -";

fn is_table(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (3..=255).contains(&name.len()) && name.bytes().all(known)
}
