//! Sets of responses for the API description, to name in `responses(…)` before an operation's own. `problems!` declares a set,
//! of an error type next to its mapping. Every operation also has the rejections of the edge.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

pub type Responses = BTreeMap<String, RefOr<Response>>;

/// Declares sets of problems, by status: new types, or error types that exist.
macro_rules! problems {
    () => {};
    (impl $set:ty { $($status:literal: $description:literal),* $(,)? } $($rest:tt)*) => {
        impl utoipa::IntoResponses for $set {
            fn responses() -> $crate::http::responses::Responses {
                $crate::http::responses::of(&[$(($status, $description)),*])
            }
        }
        $crate::http::responses::problems! { $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis struct $set:ident { $($problems:tt)* } $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $set;
        $crate::http::responses::problems! { impl $set { $($problems)* } $($rest)* }
    };
}
pub(crate) use problems;

problems! {
    /// Of an operation that reads a JSON body.
    pub struct JsonBody {
        400: "Not JSON, or a parameter is unknown or unreadable",
        408: "The body took too long",
        413: "The body is too large",
        415: "The body is not JSON by its type",
        422: "A field or a parameter is missing or not acceptable",
    }

    /// Of an operation that ignores its body.
    pub struct IgnoredBody {
        408: "The body took too long",
        413: "The body is too large",
    }

    /// Of an operation that uses the storage.
    pub struct Stored {
        503: "The storage is busy or down",
    }

    /// Of an operation with admission.
    pub struct Limited {
        429: "Too much from this address, or it is blocked",
    }

    /// Of an operation with an id or another parameter that has a form.
    pub struct Parameters {
        422: "A parameter is not acceptable",
    }

    /// Of an operation on one thing.
    pub struct NotFound {
        404: "There is none, or it is no longer stored",
    }

    /// Of every operation.
    struct Edge {
        400: "A parameter is unknown or unreadable",
        403: "Sent by a browser on behalf of another site's page",
        421: "For a host that this listener does not answer for",
    }
}

/// Of an operation that honours `If-None-Match`.
#[derive(Debug)]
pub struct NotModified;

impl IntoResponses for NotModified {
    fn responses() -> Responses {
        let response = Response::new("The client has it");
        [("304".to_owned(), RefOr::T(response))].into()
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
pub(super) fn describe_rejections(operation: &mut Operation) {
    for (status, response) in Edge::responses() {
        let known = &mut operation.responses.responses;
        known.entry(status).or_insert(response);
    }
}

/// For `problems!`.
pub fn of(problems: &[(u16, &str)]) -> Responses {
    let response = |&(status, description): &(u16, &str)| {
        let mut response = ResponseBuilder::new().description(description).content(
            "application/problem+json",
            Content::new(Some(Ref::from_schema_name("Problem"))),
        );
        if matches!(status, 429 | 503) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new()
                .schema(Some(seconds.minimum(Some(1))))
                .description(Some("Seconds"))
                .build();
            response = response.header("Retry-After", header);
        }
        if status == 429 {
            for name in ["RateLimit", "RateLimit-Policy"] {
                let text = ObjectBuilder::new().schema_type(Type::String);
                response = response.header(name, HeaderBuilder::new().schema(Some(text)).build());
            }
        }
        (status.to_string(), RefOr::T(response.build()))
    };
    problems.iter().map(response).collect()
}
