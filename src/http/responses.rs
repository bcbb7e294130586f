//! Shared response sets for the API description, to name in `responses(…)` before an operation's own.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

type Responses = BTreeMap<String, RefOr<Response>>;

/// Of an operation that reads a JSON body.
#[derive(Debug)]
pub struct JsonBody;

/// Of an operation that ignores its body.
#[derive(Debug)]
pub struct IgnoredBody;

/// Of an operation that uses the storage.
#[derive(Debug)]
pub struct Stored;

/// Of an operation with admission.
#[derive(Debug)]
pub struct Limited;

/// Of an operation on an id in its path or query.
#[derive(Debug)]
pub struct NamedById;

impl IntoResponses for JsonBody {
    fn responses() -> Responses {
        problems(&[
            ("400", "Not JSON, or an unknown query parameter"),
            ("408", "The body took too long"),
            ("413", "The body is too large"),
            ("415", "The body is not JSON by its type"),
            ("422", "A field is missing or not acceptable"),
        ])
    }
}

impl IntoResponses for IgnoredBody {
    fn responses() -> Responses {
        problems(&[
            ("408", "The body took too long"),
            ("413", "The body is too large"),
        ])
    }
}

impl IntoResponses for Stored {
    fn responses() -> Responses {
        problems(&[("503", "The storage is busy or down")])
    }
}

impl IntoResponses for NamedById {
    fn responses() -> Responses {
        problems(&[("422", "Not an id")])
    }
}

impl IntoResponses for Limited {
    fn responses() -> Responses {
        problems(&[("429", "Too much from this address, or it is blocked")])
    }
}

/// Adds flood control's answers to the unsafe operations of these paths.
pub fn describe_limits(paths: &mut Paths) {
    for item in paths.paths.values_mut() {
        let writes = [
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in writes.into_iter().flatten() {
            operation.responses.responses.extend(Limited::responses());
        }
    }
}

/// Adds the rejections of the edge.
pub(super) fn describe_refusals(operation: &mut Operation) {
    let refusals = problems(&[
        ("400", "An unknown query parameter"),
        ("403", "Sent by a browser on behalf of another site's page"),
        ("421", "For a host that this listener does not answer for"),
    ]);
    for (status, response) in refusals {
        let known = &mut operation.responses.responses;
        known.entry(status).or_insert(response);
    }
}

fn problems(problems: &[(&str, &str)]) -> Responses {
    let response = |&(status, description): &(&str, &str)| {
        let mut response = ResponseBuilder::new().description(description).content(
            "application/problem+json",
            Content::new(Some(Ref::from_schema_name("Problem"))),
        );
        if status == "503" || status == "429" {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new()
                .schema(Some(seconds.minimum(Some(1))))
                .description(Some("Seconds"))
                .build();
            response = response.header("Retry-After", header);
        }
        if status == "429" {
            for name in ["RateLimit", "RateLimit-Policy"] {
                let text = ObjectBuilder::new().schema_type(Type::String);
                response = response.header(name, HeaderBuilder::new().schema(Some(text)).build());
            }
        }
        (status.to_owned(), RefOr::T(response.build()))
    };
    problems.iter().map(response).collect()
}
