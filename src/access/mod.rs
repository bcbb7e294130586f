//! Who may do what: tokens, the identities they prove, and sessions of browsers. Knows no HTTP; `http::guard` asks it for
//! each request, and `docs/access.md` is for operators.
//!
//! ```text
//!   tokens file -> tokens_file::Entry -> [`tokens::Tokens`] -- presented token --> [`Identity`], or a [`tokens::Refused`]
//!                                             ^                                       |
//!                               [`watch`]: replaced when the file changes             |  roles of the route
//!                                                                                     v
//!                                                                                 [`Granted`]
//! ```
//!
//! - A token is 256 random bits, so its SHA-256 is enough at rest: a slow password hash would only let anyone who sends wrong
//!   tokens use up the processor.
//! - Opaque tokens, not signed ones: a revoked token must be refused at once, and there is no issuer to ask
//!   (`docs/adr/0020-opaque-tokens.md`).

pub mod config;
pub mod role;
pub mod session;
pub mod tls;
pub mod token;
pub mod tokens;
pub mod tokens_file;
mod turns;
pub mod watch;

use std::future::pending;
use std::sync::Arc;

use self::tokens::TokenSet;
pub use role::{Role, Roles};

/// Whom a credential stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// In logs, in records and in the operational log.
    pub name: Box<str>,
    /// For whom it acts: a barista, drone, driver, sender or recipient. The name, if nothing else was given.
    pub subject: Box<str>,
    pub roles: Roles,
    /// The token's id; none for a client certificate.
    pub token: Option<Box<str>>,
}

/// An identity that may use a route, and which of the route's roles it has.
#[derive(Debug, Clone)]
pub struct Granted {
    pub identity: Arc<Identity>,
    /// Never empty.
    pub roles: Roles,
    /// The set that has its token; none for a client certificate.
    pub tokens: Option<TokenSet>,
}

impl Granted {
    /// Resolves once its token is revoked. For requests that are held.
    pub async fn revoked(&self) {
        match &self.tokens {
            Some(tokens) => tokens.revoked(&self.identity).await,
            None => pending().await,
        }
    }

    /// The only subject that it may act for, if it has no other role here than this one.
    pub fn bound_to(&self, role: Role) -> Option<&str> {
        (self.roles == Roles::from(role)).then_some(&self.identity.subject)
    }
}
