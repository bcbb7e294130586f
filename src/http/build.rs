//! What runs: version, features, and the configuration keys that differ from the defaults.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::caching::no_store;
use super::config::Pages;
use crate::values::time::Moment;
use crate::version;

/// The program, its version and its configuration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Build {
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// Abbreviated to 12 digits, or `unknown`.
    #[schema(example = "7bfede2c1f0a")]
    pub commit: &'static str,
    /// Of the build.
    #[schema(example = json!(["redis"]))]
    features: &'static [&'static str],
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Moment,
    /// The keys at the start that differ from the defaults, with dots; `***` for credentials.
    #[schema(value_type = Object, example = json!({"orders.lease": "3m"}))]
    config: Map<String, Value>,
    /// `pages.links`.
    links: Vec<NamedLink>,
}

/// A link of the operator's page.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct NamedLink {
    #[schema(example = "Grafana")]
    name: String,
    url: String,
}

impl Build {
    /// Of this program, started now, with these keys.
    pub fn new(config: Map<String, Value>, pages: &Pages) -> Arc<Self> {
        let links = pages.links().map(|(name, url)| NamedLink {
            name: name.to_owned(),
            url: url.to_owned(),
        });
        Arc::new(Self {
            version: version::VERSION,
            commit: version::COMMIT,
            features: version::FEATURES,
            started_at: Timestamp::now().into(),
            config,
            links: links.collect(),
        })
    }
}

/// What runs
///
/// Version, features, and what of the configuration is not the default.
#[utoipa::path(
    get, path = "/build", tag = "status", security(("token" = ["operator"])),
    responses((status = 200, description = "The build", body = Build)),
)]
async fn show_build(State(build): State<Arc<Build>>) -> Response {
    no_store(&*build)
}

/// The route `/build`.
pub fn build_routes() -> [UtoipaMethodRouter<Arc<Build>>; 1] {
    [routes!(show_build)]
}
