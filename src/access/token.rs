//! The text of tokens: `ody_<id>_<secret>`. The prefix is for scanners that search repositories and logs for secrets.

use std::fmt::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const PREFIX: &str = "ody_";
/// Characters of an id: 48 random bits. It is no secret; it finds the token's entry.
pub const ID_CHARS: usize = 12;
/// Characters of a secret: 256 random bits as base64url.
const SECRET_CHARS: usize = 43;
/// Characters of a token.
pub const TOKEN_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS;

/// SHA-256 of a token's text. Not comparable except in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of all of its text.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The digest of no token: what an unknown one is compared with.
    pub fn of_nothing() -> Self {
        Self([0; 32])
    }

    /// From 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        let nibble = |at: usize| (*digits.get(at)? as char).to_digit(16);
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(nibble(2 * at)? << 4 | nibble(2 * at + 1)?).ok()?;
        }
        (digits.len() == 64).then_some(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// In constant time.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// In hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A new token: its id, and its text, which is printed once.
pub struct NewToken {
    pub id: String,
    pub text: Zeroizing<String>,
}

impl NewToken {
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = Zeroizing::new([0; ID_CHARS / 2 + 32]);
        getrandom::fill(&mut random[..])?;
        let (id, secret) = random.split_at(ID_CHARS / 2);
        let id = hex(id);
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(secret));
        let text = Zeroizing::new(format!("{PREFIX}{id}_{}", *secret));
        Ok(Self { id, text })
    }

    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewToken({})", self.id)
    }
}

/// Whether a text is an id.
pub fn is_id(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == ID_CHARS && text.bytes().all(digit)
}

/// The id in a well-formed token.
pub fn id_of(token: &[u8]) -> Option<&str> {
    if token.len() != TOKEN_CHARS {
        return None;
    }
    let rest = std::str::from_utf8(token).ok()?.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_once('_')?;
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (is_id(id) && secret.bytes().all(known)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_has_its_form_and_is_shown_nowhere() {
        let (one, other) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
        assert_ne!(*one.text, *other.text);
        assert_eq!(id_of(one.text.as_bytes()), Some(&*one.id));
        assert!(!format!("{one:?} {:?}", one.digest()).contains(&one.text[17..]));
        assert!(
            one.digest()
                .is(&Digest::parse(&one.digest().to_string()).unwrap())
        );
        assert!(!one.digest().is(&other.digest()));
    }

    #[test]
    fn a_digest_is_sha256_of_the_whole_text() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        for wrong in [
            "",
            &abc[1..],
            &format!("{abc}0"),
            &abc.replace('b', "g"),
            &"é".repeat(32),
        ] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_a_whole_token_has_an_id() {
        let good = format!("ody_0123456789ab_{}", "A".repeat(43));
        assert_eq!(id_of(good.as_bytes()), Some("0123456789ab"));
        for wrong in [
            String::new(),
            format!("{good}A"),
            good[1..].to_owned(),
            good.replace("ody", "ODY"),
            good.replace("89ab", "89AB"),
            good.replace("AA", "A="),
            good.replace("_A", "AA"),
            good.replace("AA", "\u{e9}"),
        ] {
            assert_eq!(id_of(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
