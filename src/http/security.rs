//! What an operation requires of its callers: declared in its description, as `security(("token" = ["barista"]))`, and read
//! from there, so that the description says what is enforced. An operation without it is refused to everyone.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};

use super::responses;
use crate::access::{Role, Roles};

/// The cookie of a browser's session.
pub(super) const SESSION_COOKIE: &str = "odyssey_session";
/// The scheme that descriptions name.
const TOKEN: &str = "token";
/// The schemes of each kind of credential, added to each operation that names [`TOKEN`].
const SESSION: &str = "session";
const CERTIFICATE: &str = "certificate";

/// What an operation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing was declared: it is refused.
    Undeclared,
    /// Open to everyone; credentials are ignored: `security(())`.
    Nothing,
    /// Open to everyone, but a credential must be valid and have one of these roles: `security((), ("token" = […]))`.
    Optional(Roles),
    /// One of these roles, or operator.
    Roles(Roles),
}

impl Requirement {
    /// # Panics
    /// If the operation names an unknown role: a mistake in the code, which every start shows.
    pub(super) fn of(operation: &Operation) -> Self {
        let Some(declared) = &operation.security else {
            return Self::Undeclared;
        };
        let (mut open, mut roles) = (false, None);
        for requirement in declared {
            let named = scopes(requirement);
            open |= named.is_empty();
            for (_, names) in named {
                roles = Some(roles_of(&names));
            }
        }
        match (open, roles) {
            (true, None) => Self::Nothing,
            (true, Some(roles)) => Self::Optional(roles),
            (false, Some(roles)) => Self::Roles(roles),
            (false, None) => Self::Undeclared,
        }
    }
}

/// No name is every role.
fn roles_of(names: &[String]) -> Roles {
    if names.is_empty() {
        return Roles::from_iter(Role::ALL);
    }
    let role = |name: &String| {
        name.parse::<Role>()
            .unwrap_or_else(|error| panic!("{error}"))
    };
    names.iter().map(role).collect()
}

/// The schemes of a requirement, and the roles that it names.
fn scopes(requirement: &SecurityRequirement) -> Vec<(String, Vec<String>)> {
    let value = serde_json::to_value(requirement).unwrap_or_default();
    let schemes = value.as_object().into_iter().flatten();
    let texts = |value: &serde_json::Value| {
        let names = value.as_array().into_iter().flatten();
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    schemes
        .map(|(scheme, roles)| (scheme.clone(), texts(roles)))
        .collect()
}

/// How a listener's credentials are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Security {
    pub kind: Kind,
    /// Without it everything is open to everyone.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tokens,
    TokensAndSessions,
    Certificates,
}

impl Security {
    /// Of a listener that is open to everyone.
    pub fn open() -> Self {
        Self {
            kind: Kind::Tokens,
            required: false,
        }
    }

    fn schemes(self) -> &'static [&'static str] {
        match self.kind {
            Kind::Tokens => &[TOKEN],
            Kind::TokensAndSessions => &[TOKEN, SESSION],
            Kind::Certificates => &[CERTIFICATE],
        }
    }

    /// The schemes, for the description's components.
    pub(super) fn described(self) -> impl Iterator<Item = (&'static str, SecurityScheme)> {
        let described = |&name: &&'static str| {
            let scheme = match name {
                SESSION => {
                    let text =
                        "A browser's session. Log in at [/login](/login); nothing is entered here.";
                    SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                        SESSION_COOKIE,
                        text,
                    )))
                }
                CERTIFICATE => SecurityScheme::MutualTls {
                    description: Some(
                        "A client certificate with the URI odyssey://role/name.".to_owned(),
                    ),
                    deprecated: None,
                    extensions: None,
                },
                _ => {
                    let mut http = Http::new(HttpAuthScheme::Bearer);
                    http.description = Some("A token, from `odyssey token new`.".to_owned());
                    SecurityScheme::Http(http)
                }
            };
            (name, scheme)
        };
        self.schemes().iter().map(described)
    }

    /// Completes what an operation declares: operators may do everything, each scheme is an alternative, and a listener
    /// without credentials is open.
    pub(super) fn complete(self, operation: &mut Operation) {
        let requirement = Requirement::of(operation);
        let (roles, open) = match requirement {
            Requirement::Undeclared | Requirement::Nothing => return,
            Requirement::Optional(roles) => (roles, true),
            Requirement::Roles(roles) => (roles, !self.required),
        };
        let names: Vec<_> = roles.and(Role::Operator).iter().map(Role::name).collect();
        let schemes = self.schemes().iter();
        let mut all: Vec<_> = schemes
            .map(|&scheme| SecurityRequirement::new(scheme, names.clone()))
            .collect();
        if open {
            all.insert(0, SecurityRequirement::default());
        } else {
            let known = &mut operation.responses.responses;
            for (status, response) in responses::of(&[
                (401, "No valid credential"),
                (
                    403,
                    "The credential is for other roles or another subject, or another site's page sent this",
                ),
                (429, "Too many refused credentials from this address"),
            ]) {
                known.entry(status).or_insert(response);
            }
        }
        operation.security = Some(all);
    }
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::path::OperationBuilder;

    use super::*;

    fn operation(security: Option<Vec<SecurityRequirement>>) -> Operation {
        let operation = OperationBuilder::new();
        operation.securities(security).build()
    }

    #[test]
    fn an_operation_that_declares_nothing_stays_closed_whatever_the_listener_requires() {
        let token = |roles: &[&str]| SecurityRequirement::new(TOKEN, roles.to_vec());
        let open = SecurityRequirement::default;
        let (barista, operator) = (Roles::from(Role::Barista), Role::Operator);
        for required in [true, false] {
            let security = Security {
                kind: Kind::TokensAndSessions,
                required,
            };
            let restricted = if required {
                Requirement::Roles(barista.and(operator))
            } else {
                Requirement::Optional(barista.and(operator))
            };
            for (declared, completed) in [
                (None, Requirement::Undeclared),
                (Some(vec![]), Requirement::Undeclared),
                (Some(vec![open()]), Requirement::Nothing),
                (Some(vec![token(&["barista"])]), restricted),
                (
                    Some(vec![open(), token(&[])]),
                    Requirement::Optional(Roles::from_iter(Role::ALL)),
                ),
            ] {
                let mut operation = operation(declared);
                security.complete(&mut operation);
                assert_eq!(Requirement::of(&operation), completed);
            }
        }
    }
}
