//! Collects routes with their descriptions, so that a listener serves exactly what its `OpenAPI` document says.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use tracing::error;
use utoipa::openapi::path::Paths;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Schema,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::docs;
use super::files::File;
use super::html;
use super::pages;
use super::problem::Problem;
use super::reply::FastPath;
use super::responses::describe_rejections;
use super::security::Security;

#[derive(Clone)]
pub struct Api {
    router: OpenApiRouter,
    security: Security,
    fast_path: Option<Arc<dyn FastPath>>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    pub fn new(title: &str, description: &str, security: Security) -> Self {
        let info = InfoBuilder::new()
            .title(title)
            .version(crate::version::VERSION)
            .description(Some(description))
            .license(Some(
                LicenseBuilder::new()
                    .name(env!("CARGO_PKG_LICENSE"))
                    .identifier(Some(env!("CARGO_PKG_LICENSE")))
                    .build(),
            ))
            .build();
        // Named by the sets of `responses`.
        let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
        Problem::schemas(&mut schemas);
        let components = security
            .described()
            .fold(ComponentsBuilder::new(), |components, (name, scheme)| {
                components.security_scheme(name, scheme)
            });
        let components = components.schemas_from_iter(schemas).build();
        let openapi = OpenApiBuilder::new()
            .info(info)
            .components(Some(components))
            .build();
        Self {
            router: OpenApiRouter::with_openapi(openapi),
            security,
            fast_path: None,
        }
    }

    /// Adds paths, each with and without a trailing slash. Without `state` they are only described.
    #[must_use]
    pub fn routes<S: Clone + Send + Sync + 'static>(
        self,
        routes: impl IntoIterator<Item = UtoipaMethodRouter<S>>,
        state: Option<&S>,
    ) -> Self {
        routes
            .into_iter()
            .fold(self, |api, (schemas, paths, methods)| {
                let methods = state.map(|state| methods.with_state(state.clone()));
                api.route(schemas, paths, &methods.unwrap_or_default())
            })
    }

    /// Some requests of the added paths are answered by `fast_path`.
    #[must_use]
    pub fn with_fast_path(self, fast_path: Option<Arc<dyn FastPath>>) -> Self {
        Self { fast_path, ..self }
    }

    pub(super) fn fast_path(&self) -> Option<Arc<dyn FastPath>> {
        self.fast_path.clone()
    }

    fn route(
        mut self,
        schemas: Vec<(String, RefOr<Schema>)>,
        mut paths: Paths,
        methods: &MethodRouter,
    ) -> Self {
        debug_assert!(self.names_are_new(&schemas), "two schemas of one name");
        for item in paths.paths.values_mut() {
            let operations = [
                &mut item.get,
                &mut item.post,
                &mut item.put,
                &mut item.patch,
                &mut item.delete,
            ];
            let operations = operations.into_iter().flatten();
            operations.for_each(|operation| {
                self.security.complete(operation);
                describe_rejections(operation);
            });
        }
        let other_paths: Vec<String> = paths
            .paths
            .keys()
            .filter(|path| *path != "/")
            .map(|path| other_form(path))
            .collect();
        self.router = self.router.routes((schemas, paths, methods.clone()));
        for path in other_paths {
            self.router = self.router.route(&path, methods.clone());
        }
        self
    }

    /// Whether no other schema has the name of one of these: the second would silently replace the first.
    fn names_are_new(&self, schemas: &[(String, RefOr<Schema>)]) -> bool {
        let known = self.router.get_openapi().components.as_ref();
        schemas.iter().all(|(name, schema)| {
            let known = known.and_then(|known| known.schemas.get(name));
            known.is_none_or(|known| known == schema)
        })
    }

    pub fn openapi(&self) -> OpenApi {
        self.router.get_openapi().clone()
    }

    /// Two routers: one of the described paths, which has nothing else, and one of all that is open to everyone
    /// (`/openapi.json`, `/docs`, the files of pages) with problems for all else.
    pub fn into_routers(self) -> [Router; 2] {
        let (router, openapi) = self.router.split_for_parts();
        let json_type = HeaderValue::from_static("application/json");
        let description = openapi
            .to_json()
            .map(|json| File::new(json_type, json.into()));
        if let Err(error) = &description {
            error!(%error, "the description of the API cannot be rendered as JSON");
        }
        let description = Arc::new(description.ok());
        let description = get(async move |headers: HeaderMap| match &*description {
            Some(file) => file.answer(&headers, false),
            None => Problem::bug().into_response(),
        });
        let pages = Router::new()
            .route("/openapi.json", description.clone())
            .route("/openapi.json/", description)
            .merge(docs::routes())
            .merge(html::files())
            .merge(pages::assets());
        [router, pages].map(|router| {
            router
                .fallback(async || Problem::no_such_path())
                .method_not_allowed_fallback(async || Problem::no_such_method())
        })
    }
}

fn other_form(path: &str) -> String {
    path.strip_suffix('/')
        .map_or_else(|| format!("{path}/"), ToOwned::to_owned)
}
