//! The valid tokens, by id.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::Identity;
use super::token::{Digest, id_of};
use super::tokens_file::Entry;

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It has not the form of a token.
    Malformed,
    /// It never was a valid token, or was revoked.
    Unknown,
    Expired,
}

#[derive(Debug)]
struct Known {
    digest: Digest,
    not_after: Option<Timestamp>,
    identity: Arc<Identity>,
}

/// A set of tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    by_id: HashMap<Box<str>, Known, RandomState>,
}

impl Tokens {
    pub fn new(entries: Vec<Entry>) -> Self {
        let known = |entry: Entry| {
            let id: Box<str> = entry.id.into();
            let name: Box<str> = entry.name.into();
            let identity = Identity {
                subject: entry.subject.map_or_else(|| name.clone(), Into::into),
                name,
                roles: entry.roles,
                token: Some(id.clone()),
            };
            let known = Known {
                digest: entry.digest,
                not_after: entry.not_after,
                identity: Arc::new(identity),
            };
            (id, known)
        };
        Self {
            by_id: entries.into_iter().map(known).collect(),
        }
    }

    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// When the first of those that are valid `now` expires.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.by_id.values().filter_map(|known| known.not_after);
        ends.filter(|&end| end > now).min()
    }

    /// The identity of a presented token. An unknown token costs what a known one costs: it is hashed and compared, too.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<Arc<Identity>, Refused> {
        let id = id_of(token).ok_or(Refused::Malformed)?;
        let known = self.by_id.get(id);
        let nothing = Digest::of_nothing();
        let expected = known.map_or(&nothing, |known| &known.digest);
        let is_it = Digest::of(token).is(expected);
        let known = known.filter(|_| is_it).ok_or(Refused::Unknown)?;
        known.valid(now)
    }

    fn has(&self, identity: &Identity) -> bool {
        let known = identity.token.as_deref().and_then(|id| self.by_id.get(id));
        known.is_some_and(|known| *known.identity == *identity)
    }

    /// The digest and identity of a valid token with this id, for sessions.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn holder(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<(&Digest, Arc<Identity>), Refused> {
        let known = self.by_id.get(id).ok_or(Refused::Unknown)?;
        Ok((&known.digest, known.valid(now)?))
    }
}

impl Known {
    fn valid(&self, now: Timestamp) -> Result<Arc<Identity>, Refused> {
        let is_over = self.not_after.is_some_and(|end| end <= now);
        if is_over {
            return Err(Refused::Expired);
        }
        Ok(Arc::clone(&self.identity))
    }
}

/// The tokens that are valid now. Cheap to clone; replaced as a whole when the file changes.
#[derive(Debug, Clone, Default)]
pub struct TokenSet(Arc<InForce>);

#[derive(Debug, Default)]
struct InForce {
    tokens: ArcSwap<Tokens>,
    replaced: Notify,
}

impl TokenSet {
    pub fn now(&self) -> Arc<Tokens> {
        self.0.tokens.load_full()
    }

    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<Arc<Identity>, Refused> {
        self.0.tokens.load().verify(token, now)
    }

    pub fn replace(&self, tokens: Tokens) {
        self.0.tokens.store(Arc::new(tokens));
        self.0.replaced.notify_waiters();
    }

    /// Resolves once this identity's token is revoked, or is another identity's.
    pub(super) async fn revoked(&self, identity: &Identity) {
        loop {
            // Before the look: it resolves also if the set is replaced in between.
            let replaced = self.0.replaced.notified();
            if !self.0.tokens.load().has(identity) {
                return;
            }
            replaced.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;
    use crate::access::role::{Role, Roles};
    use crate::access::token::NewToken;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A token that is valid until second 10, and the set that has it.
    fn known(subject: Option<&str>) -> (NewToken, Tokens) {
        let token = NewToken::generate().unwrap();
        let entry = Entry {
            id: token.id.clone(),
            name: "bo".to_owned(),
            roles: Role::Barista.into(),
            digest: token.digest(),
            subject: subject.map(str::to_owned),
            not_after: Some(at(10)),
        };
        (token, Tokens::new(vec![entry]))
    }

    #[test]
    fn only_the_whole_token_is_accepted_and_only_in_its_time() {
        let (token, tokens) = known(None);
        let identity = tokens.verify(token.text.as_bytes(), at(9)).unwrap();
        assert_eq!((&*identity.name, &*identity.subject), ("bo", "bo"));
        assert_eq!(identity.roles, Roles::from(Role::Barista));
        let verify = |text: &str, second| tokens.verify(text.as_bytes(), at(second)).unwrap_err();
        assert_eq!(verify(&token.text, 10), Refused::Expired);
        let other = NewToken::generate().unwrap();
        assert_eq!(verify(&other.text, 9), Refused::Unknown);
        // The right id with another secret.
        let forged = format!("{}{}", &token.text[..17], &other.text[17..]);
        assert_eq!(verify(&forged, 9), Refused::Unknown);
        assert_eq!(verify(&token.text[1..], 9), Refused::Malformed);
        assert_eq!(tokens.next_expiry(at(9)), Some(at(10)));
        assert_eq!(tokens.next_expiry(at(10)), None);
    }

    #[tokio::test]
    async fn an_identity_is_revoked_by_the_set_that_lacks_its_token_and_by_no_other() {
        let (token, tokens) = known(None);
        let set = TokenSet::default();
        set.replace(tokens);
        let identity = set.verify(token.text.as_bytes(), at(0)).unwrap();
        let waiting = set.clone();
        let waiting = tokio::spawn(async move { waiting.revoked(&identity).await });
        yield_now().await;
        let entry = Entry {
            id: token.id.clone(),
            name: "bo".to_owned(),
            roles: Role::Barista.into(),
            digest: token.digest(),
            subject: None,
            not_after: None,
        };
        set.replace(Tokens::new(vec![entry]));
        yield_now().await;
        assert!(!waiting.is_finished());
        set.replace(Tokens::default());
        waiting.await.unwrap();
    }

    #[test]
    fn a_replaced_set_no_longer_knows_a_revoked_token() {
        let (token, tokens) = known(Some("drone-7"));
        let set = TokenSet::default();
        set.replace(tokens);
        let verify = || set.verify(token.text.as_bytes(), at(0));
        assert_eq!(&*verify().unwrap().subject, "drone-7");
        set.replace(Tokens::default());
        assert_eq!(verify(), Err(Refused::Unknown));
    }
}
