//! Idempotency keys: which text is one, and which requests name the same order by it. Pure. What a key does is in the line.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::values::id;

/// The shortest idempotency key that is global, in characters. Shorter ones, such as `1` or `order-1`, can be guessed, and
/// would give a client the orders of others: they count per origin.
pub const KEY_ANYWHERE_CHARS_MIN: usize = 16;

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII characters. One of
/// [`KEY_ANYWHERE_CHARS_MIN`] or more names the same order from any address, since a phone changes networks; a shorter one
/// counts per origin. A client with a token has keys of its own, of any length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    text: Arc<str>,
    scope: Scope,
}

/// Keys of different scopes are different keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    /// A long key without an identity.
    Anywhere,
    /// A short one.
    Origin(IpNet),
    /// The name of an identity.
    Identity(Box<str>),
}

impl IdempotencyKey {
    /// None if it is empty, too long, or holds anything but visible ASCII.
    pub fn parse(text: &[u8], origin: IpNet) -> Option<Self> {
        let text = id::key(text)?;
        let scope = if text.len() < KEY_ANYWHERE_CHARS_MIN {
            Scope::Origin(origin)
        } else {
            Scope::Anywhere
        };
        Some(Self {
            text: Arc::from(text),
            scope,
        })
    }

    /// The key of a client with a token. None as for [`IdempotencyKey::parse`].
    pub fn of_identity(text: &[u8], identity: &str) -> Option<Self> {
        Some(Self {
            text: Arc::from(id::key(text)?),
            scope: Scope::Identity(identity.into()),
        })
    }

    /// The key with its scope as text: different keys are different texts.
    pub fn with_scope(&self) -> String {
        // A key has no spaces.
        let text = &self.text;
        match &self.scope {
            Scope::Anywhere => format!("{text} anywhere"),
            Scope::Origin(origin) => format!("{text} at {origin}"),
            Scope::Identity(identity) => format!("{text} of {identity}"),
        }
    }
}

/// A key and the digest of its body: the same key with another body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    pub key: IdempotencyKey,
    pub fingerprint: u64,
    /// How long the order stays after its customer disconnected; none: `orders.reconnect_grace`.
    pub keep: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<IdempotencyKey> {
        IdempotencyKey::parse(text, "192.0.2.1/32".parse().unwrap())
    }

    #[test]
    fn a_key_is_1_to_255_visible_ascii_characters() {
        for (text, fits) in [
            ("k", true),
            ("0191d5c8-7a9b", true),
            ("~!\"#", true),
            ("", false),
            ("with space", false),
            ("tab\t", false),
            ("naïve", false),
            ("\u{7f}", false),
        ] {
            assert_eq!(parse(text.as_bytes()).is_some(), fits, "{text:?}");
        }
        assert!(parse(&[b'x'; 255]).is_some());
        assert!(parse(&[b'x'; 256]).is_none());
    }

    #[test]
    fn a_short_key_is_its_origin_s_and_a_long_one_the_same_from_anywhere() {
        let elsewhere =
            |text| IdempotencyKey::parse(text, "2001:db8::/64".parse().unwrap()).unwrap();
        for (text, same) in [
            (&b"1"[..], false),
            (b"fifteen-letters", false),
            (b"sixteen-letters!", true),
        ] {
            assert_eq!(parse(text).unwrap() == elsewhere(text), same);
            assert_eq!(elsewhere(text), elsewhere(text));
            // With a token it is the identity's.
            let of = |identity| IdempotencyKey::of_identity(text, identity).unwrap();
            assert_eq!(of("ada"), of("ada"));
            assert_ne!(of("ada"), of("eve"));
            assert_ne!(of("ada"), elsewhere(text));
        }
    }
}
