//! Sessions of browsers: a cookie that proves that its holder presented a token, without the token. The server keeps none of
//! them; a session ends with its token, after its time, or when the key is deleted.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::Identity;
use super::token::Digest;
use super::tokens::{Refused, Tokens};

const KEY_BYTES: usize = 32;
/// Far above any session's text.
const SESSION_CHARS_MAX: usize = 128;

/// Issues and verifies sessions.
#[derive(Clone)]
pub struct Sessions {
    key: Arc<Zeroizing<[u8; KEY_BYTES]>>,
    lifetime: Duration,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// With the key in this file, which is created if it is missing: sessions outlive a restart.
    ///
    /// # Errors
    /// If it cannot be read or created, or is no key.
    pub fn open(path: &Path, lifetime: Duration) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        match File::open(path) {
            Ok(mut file) => file.read_exact(&mut key[..])?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                getrandom::fill(&mut key[..])?;
                // Whole or not at all; only its owner may read it.
                let directory = path.parent().unwrap_or(Path::new("."));
                let mut file = NamedTempFile::new_in(directory)?;
                file.write_all(&key[..])?;
                file.as_file().sync_all()?;
                file.persist_noclobber(path)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self::new(key, lifetime))
    }

    fn new(key: Zeroizing<[u8; KEY_BYTES]>, lifetime: Duration) -> Self {
        Self {
            key: Arc::new(key),
            lifetime,
        }
    }

    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A session of a valid token: `<id>.<end, seconds since 1970>.<MAC>`.
    ///
    /// # Errors
    /// [`Refused`] if the token is no longer valid.
    pub fn issue(&self, token: &str, tokens: &Tokens, now: Timestamp) -> Result<String, Refused> {
        let (digest, _) = tokens.holder(token, now)?;
        let lifetime = SignedDuration::try_from(self.lifetime).unwrap_or(SignedDuration::MAX);
        let end = now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let signed = format!("{token}.{}", end.as_second());
        let mac = self.mac(&signed, digest).finalize().into_bytes();
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac)))
    }

    /// The identity of a session.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(
        &self,
        session: &str,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refused> {
        if session.len() > SESSION_CHARS_MAX {
            return Err(Refused::Malformed);
        }
        let (signed, mac) = session.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (id, end) = signed.split_once('.').ok_or(Refused::Malformed)?;
        let end: i64 = end.parse().map_err(|_| Refused::Malformed)?;
        let mac = BASE64_URL_SAFE_NO_PAD.decode(mac);
        let mac = mac.map_err(|_| Refused::Malformed)?;
        let (digest, identity) = tokens.holder(id, now)?;
        let verified = self.mac(signed, digest).verify_slice(&mac);
        verified.map_err(|_| Refused::Unknown)?;
        if end <= now.as_second() {
            return Err(Refused::Expired);
        }
        Ok(identity)
    }

    /// The token's digest is in it: a session does not outlive its token, even if an id came again.
    fn mac(&self, signed: &str, digest: &Digest) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key[..]).expect("HMAC takes keys of any length");
        mac.update(digest.as_bytes());
        mac.update(signed.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::role::Role;
    use crate::access::token::NewToken;
    use crate::access::tokens_file::Entry;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn entry(id: &str) -> Entry {
        Entry {
            id: id.to_owned(),
            name: "ada".to_owned(),
            roles: Role::Operator.into(),
            digest: NewToken::generate().unwrap().digest(),
            subject: None,
            not_after: Some(at(500)),
        }
    }

    fn sessions(seed: u8) -> Sessions {
        Sessions::new(Zeroizing::new([seed; KEY_BYTES]), Duration::from_secs(100))
    }

    #[test]
    fn a_session_is_valid_in_its_time_while_its_token_is() {
        const ID: &str = "0123456789ab";
        let tokens = Tokens::new(vec![entry(ID)]);
        let sessions = sessions(1);
        let session = sessions.issue(ID, &tokens, at(0)).unwrap();
        let verify = |session: &str, second| sessions.verify(session, &tokens, at(second));
        assert_eq!(&*verify(&session, 99).unwrap().name, "ada");
        assert_eq!(verify(&session, 100), Err(Refused::Expired));
        assert_eq!(
            verify(&session.replace(".100.", ".900."), 99),
            Err(Refused::Unknown)
        );
        assert!(verify(&session[..session.len() - 2], 99).is_err());
        for malformed in [
            "",
            ".",
            "a.b.c",
            &"a".repeat(999),
            &session.replace('.', ""),
        ] {
            assert_eq!(
                verify(malformed, 99),
                Err(Refused::Malformed),
                "{malformed}"
            );
        }
        // Revoked; another token under the same id; expired with its token; signed with another key.
        let refused = |sessions: &Sessions, tokens| sessions.verify(&session, &tokens, at(9));
        assert_eq!(refused(&sessions, Tokens::default()), Err(Refused::Unknown));
        assert_eq!(
            refused(&sessions, Tokens::new(vec![entry(ID)])),
            Err(Refused::Unknown)
        );
        assert_eq!(
            refused(&self::sessions(2), Tokens::new(vec![entry(ID)])),
            Err(Refused::Unknown)
        );
        let late = sessions.issue(ID, &tokens, at(450)).unwrap();
        assert_eq!(verify(&late, 499).map(|_| ()), Ok(()));
        assert_eq!(verify(&late, 500), Err(Refused::Expired));
    }

    #[test]
    fn the_key_is_made_once_and_only_for_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.key");
        let first = Sessions::open(&path, Duration::ZERO).unwrap();
        let second = Sessions::open(&path, Duration::ZERO).unwrap();
        assert_eq!(**first.key, **second.key);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(Sessions::open(&path, Duration::ZERO).is_err());
    }
}
