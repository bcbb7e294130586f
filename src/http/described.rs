//! Per path of a listener's description: the route's name in metrics, the known query parameters, and what callers must prove.

use std::collections::HashMap;
use std::sync::OnceLock;

use axum::http::{Method, Uri};
use foldhash::fast::RandomState;
use metrics::Histogram;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::params::reject_unknown;
use super::problem::Problem;
use super::security::Requirement;

pub(super) struct Described {
    paths: matchit::Router<usize>,
    /// Paths without parameters: most requests, one lookup.
    plain: HashMap<Box<str>, usize, RandomState>,
    /// In the order of `paths`; the last is for unknown paths.
    routes: Vec<Route>,
}

pub(super) struct Route {
    pub(super) path: String,
    /// Registered on first use.
    pub(super) seconds: OnceLock<Histogram>,
    operations: Vec<DescribedOperation>,
}

struct DescribedOperation {
    method: Method,
    names: Names,
    requirement: Requirement,
}

impl DescribedOperation {
    fn of(method: Method, operation: &Operation) -> Self {
        Self {
            method,
            names: query_names(operation),
            requirement: Requirement::of(operation),
        }
    }
}

/// An operation's query parameters.
type Names = Vec<Box<str>>;

impl Described {
    pub(super) fn by(openapi: &OpenApi) -> Self {
        let mut paths = matchit::Router::new();
        let mut plain = HashMap::default();
        let mut routes = Vec::new();
        for (path, item) in &openapi.paths.paths {
            let bare = path.trim_end_matches('/');
            for form in [bare, &format!("{bare}/")] {
                // Skip a path that is there already in another form.
                let is_new = paths.insert(form, routes.len()).is_ok();
                if is_new && !form.contains('{') {
                    plain.insert(form.into(), routes.len());
                }
            }
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ]
            .into_iter()
            .filter_map(|(method, operation)| {
                Some(DescribedOperation::of(method, operation.as_ref()?))
            })
            .collect();
            routes.push(Route::new(path, operations));
        }
        routes.push(Route::new("none", Vec::new()));
        Self {
            paths,
            plain,
            routes,
        }
    }

    pub(super) fn find(&self, path: &str) -> usize {
        if let Some(&number) = self.plain.get(path) {
            return number;
        }
        let found = self.paths.at(path);
        found.map_or(self.routes.len() - 1, |found| *found.value)
    }

    pub(super) fn route(&self, number: usize) -> &Route {
        &self.routes[number]
    }
}

impl Route {
    fn new(path: &str, operations: Vec<DescribedOperation>) -> Self {
        Self {
            path: path.to_owned(),
            seconds: OnceLock::new(),
            operations,
        }
    }

    /// # Errors
    /// 400 for an unknown query parameter.
    pub(super) fn check_query(&self, method: &Method, uri: &Uri) -> Result<(), Problem> {
        let Some(query) = uri.query().filter(|query| !query.is_empty()) else {
            return Ok(());
        };
        // The router refuses unknown paths and methods.
        let operation = self.operation(method);
        operation.map_or(Ok(()), |known| reject_unknown(query, &known.names))
    }

    /// False for what is found where no path is: the router of the described paths must not see it.
    pub(super) fn is_described(&self) -> bool {
        !self.operations.is_empty()
    }

    /// What a request must prove. Nothing for unknown methods: the router answers 405.
    pub(super) fn requirement(&self, method: &Method) -> Requirement {
        let operation = self.operation(method);
        operation.map_or(Requirement::Nothing, |known| known.requirement)
    }

    fn operation(&self, method: &Method) -> Option<&DescribedOperation> {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let mut operations = self.operations.iter();
        operations.find(|known| known.method == method)
    }
}

fn query_names(operation: &Operation) -> Names {
    let parameters = operation.parameters.iter().flatten();
    parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
        .filter(|parameter| parameter.parameter_in == ParameterIn::Query)
        .map(|parameter| parameter.name.as_str().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::{OpenApiBuilder, PathItem, PathsBuilder};

    use super::*;

    #[test]
    fn a_path_is_known_by_its_route_in_both_forms() {
        let paths = ["/order/", "/orders/{order_id}", "/orders"];
        let paths = paths.into_iter().fold(PathsBuilder::new(), |paths, path| {
            paths.path(path, PathItem::default())
        });
        let described = Described::by(&OpenApiBuilder::new().paths(paths).build());
        for (path, route) in [
            ("/order", "/order/"),
            ("/order/", "/order/"),
            ("/orders", "/orders"),
            ("/orders/7", "/orders/{order_id}"),
            ("/orders/7/", "/orders/{order_id}"),
            ("/orders/7/8", "none"),
            ("/", "none"),
            ("none", "none"),
        ] {
            let found = described.route(described.find(path));
            assert_eq!(found.path, route, "{path}");
        }
    }
}
