//! Reading parameters in the path and the query string, and the request's id, with a [`Problem`] for what does not fit.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, Request};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tracing::{Level, enabled};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::edge::Caller;
use super::problem::{FieldError, Problem};

/// The query parameters that each operation of a listener knows, as its description says.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By path without a trailing slash.
    literal: HashMap<Box<str>, Operations>,
    /// Paths with parameters of their own.
    templates: Vec<(Box<str>, Operations)>,
}

/// A path's methods, each with its query parameters.
type Operations = Vec<(Method, Names)>;
type Names = Vec<Box<str>>;

impl Known {
    /// Of everything that is described.
    pub(super) fn of(openapi: &OpenApi) -> Self {
        let mut known = Self::default();
        for (path, item) in &openapi.paths.paths {
            let bare: Box<str> = path.trim_end_matches('/').into();
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ]
            .into_iter()
            .filter_map(|(method, operation)| Some((method, query_names(operation.as_ref()?))))
            .collect();
            if path.contains('{') {
                known.templates.push((bare, operations));
            } else {
                known.literal.insert(bare, operations);
            }
        }
        known
    }

    /// Rejects a query parameter that the operation does not know: a misspelt one would be ignored, and the request
    /// would do something else than it says.
    ///
    /// # Errors
    /// 400, naming the parameter and those that are known.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let uri = request.uri();
        let Some(query) = uri.query().filter(|query| !query.is_empty()) else {
            return Ok(());
        };
        // Paths and methods that are not described are for the router to refuse.
        let Some(known) = self.names(request.method(), uri.path()) else {
            return Ok(());
        };
        let is_known = |name: &str| known.iter().any(|known| **known == *name);
        let given = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        for name in given.filter(|name| !is_known(name)) {
            let spaced = name.replace('+', " ");
            let name = percent_decode_str(&spaced).decode_utf8_lossy();
            if !is_known(&name) {
                return Err(unknown(&name, known));
            }
        }
        Ok(())
    }

    fn names(&self, method: &Method, path: &str) -> Option<&Names> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let operations = self.literal.get(path).or_else(|| {
            let mut templates = self.templates.iter();
            let (_, operations) = templates.find(|(template, _)| fits(template, path))?;
            Some(operations)
        })?;
        // HEAD is answered as GET.
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let (_, names) = operations.iter().find(|(known, _)| known == method)?;
        Some(names)
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

fn fits(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let fit = template.split('/').all(|wanted| {
        let found = segments.next();
        found.is_some_and(|found| found == wanted || wanted.starts_with('{') && !found.is_empty())
    });
    fit && segments.next().is_none()
}

fn unknown(name: &str, known: &[Box<str>]) -> Problem {
    let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() {
        "there are none here".to_owned()
    } else {
        format!("known are {}", quoted.join(", "))
    };
    wrong_parameter(
        name,
        format!("The query parameter `{name}` is unknown; {known}."),
    )
}

/// 400, for one parameter.
fn wrong_parameter(name: &str, detail: String) -> Problem {
    Problem::unreadable(detail.clone()).at(FieldError {
        pointer: None,
        parameter: Some(name.to_owned().into()),
        detail,
    })
}

/// The query string as a `T`. Unknown parameters have been rejected before, by `Known::check`.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The parameters of the path as a `T`.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query));
        serde_path_to_error::deserialize(pairs)
            .map(Self)
            .map_err(|error| unreadable(&error))
    }
}

/// In our words: the library's speak of its own types.
fn unreadable(error: &serde_path_to_error::Error<serde_urlencoded::de::Error>) -> Problem {
    let said = error.inner().to_string();
    // Of a parameter that is missing or there twice it knows the name only in its text.
    let quoted = said.split('`').nth(1).unwrap_or_default();
    let path = error.path().to_string();
    let (name, what) = if said.starts_with("duplicate field") {
        (quoted, "is there more than once")
    } else if said.starts_with("missing field") {
        (quoted, "is missing")
    } else if said.contains("true") {
        (&*path, "must be true or false")
    } else {
        (
            &*path,
            "must be a whole number, neither negative nor too large",
        )
    };
    wrong_parameter(name, format!("The query parameter `{name}` {what}."))
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| Problem::unreadable("The path is not UTF-8 after percent-decoding."))
    }
}

/// The request's id, as the answer will carry it.
#[derive(Debug)]
pub struct RequestId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        let id = caller.and_then(|caller| caller.request_id.to_str().ok());
        Ok(Self(id.unwrap_or_default().to_owned()))
    }
}

/// The request's id where lines are logged at debug, and nothing where they are not: it costs nothing then.
#[derive(Debug)]
pub struct LoggedRequestId(pub Option<Box<str>>);

impl<S: Send + Sync> FromRequestParts<S> for LoggedRequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        if !enabled!(Level::DEBUG) {
            return Ok(Self(None));
        }
        let RequestId(id) = RequestId::from_request_parts(parts, state).await?;
        Ok(Self(Some(id.into_boxed_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_template_segment_by_segment() {
        for (template, path, fit) in [
            ("/orders/{id}", "/orders/1", true),
            ("/orders/{id}", "/orders/", false),
            ("/orders/{id}", "/orders", false),
            ("/orders/{id}", "/orders/1/2", false),
            ("/deliveries/{id}/events", "/deliveries/1/events", true),
            ("/deliveries/{id}/events", "/deliveries/1/others", false),
        ] {
            assert_eq!(fits(template, path), fit, "{template} {path}");
        }
    }
}
