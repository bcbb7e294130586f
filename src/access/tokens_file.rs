//! The file of tokens: TOML, one `[[token]]` per token, without the tokens themselves.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::role::{Role, Roles};
use super::token::{Digest, is_id};
use crate::values::id::nfc;

/// A name, or a subject, in characters.
const NAME_CHARS_MAX: usize = 128;
/// The largest file that is read, in bytes: some 200,000 tokens.
const FILE_MAX_BYTES: u64 = 64 << 20;
const HEADER: &str = "# Tokens of Odyssey: `odyssey token new`, `list` and `revoke` change this file. It has no token, only digests.\n";

/// A token as it is stored.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: String,
    pub name: String,
    pub roles: Roles,
    pub digest: Digest,
    pub subject: Option<String>,
    /// The first moment at which it is no longer valid.
    pub not_after: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    token: Vec<WrittenEntry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    id: String,
    name: String,
    roles: Vec<String>,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
}

impl Entry {
    fn read(written: WrittenEntry) -> anyhow::Result<Self> {
        let WrittenEntry {
            id,
            name,
            roles,
            sha256,
            subject,
            not_after,
        } = written;
        // What is wrong is not quoted: it may be a token that was pasted into the wrong place.
        ensure!(is_id(&id), "an id is not 12 hexadecimal digits");
        let of = || format!("token {id}");
        check_name(&name).with_context(of)?;
        if let Some(subject) = &subject {
            check_name(subject).with_context(of)?;
        }
        let roles: Option<Roles> = roles.iter().map(|role| role.parse::<Role>().ok()).collect();
        let roles = roles.with_context(|| {
            let known = Roles::from_iter(Role::ALL);
            format!("token {id}: a role is unknown; roles are {known}")
        })?;
        ensure!(!roles.is_empty(), "token {id}: it has no role");
        let digest = Digest::parse(&sha256)
            .with_context(|| format!("token {id}: `sha256` is not 64 hexadecimal digits"))?;
        let not_after = not_after.map(|text| text.parse()).transpose();
        let not_after = not_after.with_context(|| {
            format!("token {id}: `not_after` is no time such as 2027-01-31T00:00:00Z")
        })?;
        Ok(Self {
            id,
            name,
            roles,
            digest,
            // As ids are: a name may be written in several ways.
            subject: subject.map(|subject| nfc(&subject).into_owned()),
            not_after,
        })
    }

    fn written(&self) -> WrittenEntry {
        WrittenEntry {
            id: self.id.clone(),
            name: self.name.clone(),
            roles: self
                .roles
                .iter()
                .map(|role| role.name().to_owned())
                .collect(),
            sha256: self.digest.to_string(),
            subject: self.subject.clone(),
            not_after: self.not_after.map(|time| time.to_string()),
        }
    }
}

/// # Errors
/// If it is no acceptable name or subject: 1 to 128 characters, none of them a control character. They are in logs.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    ensure!(
        fits && !name.chars().any(char::is_control),
        "a name or a subject is not 1 to {NAME_CHARS_MAX} characters without control characters"
    );
    Ok(())
}

/// # Errors
/// A sentence on the first fault. It names neither digests nor what could be a token.
pub fn parse(text: &str) -> anyhow::Result<Vec<Entry>> {
    let written: Written = toml::from_str(text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start)];
        let line = before.matches('\n').count() + 1;
        // Without the parser's words, which quote the value.
        anyhow::anyhow!("line {line}: it is not as `odyssey token new` writes it")
    })?;
    let mut entries: Vec<Entry> = Vec::with_capacity(written.token.len());
    for entry in written.token {
        entries.push(Entry::read(entry)?);
    }
    let mut ids: Vec<&str> = entries.iter().map(|entry| &*entry.id).collect();
    ids.sort_unstable();
    if let Some([twice, _]) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("the id {twice} is there twice");
    }
    Ok(entries)
}

/// # Errors
/// If the file cannot be read, or [`parse`] refuses it.
pub fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let of = || format!("tokens file `{}`", path.display());
    let file = File::open(path).with_context(of)?;
    let size = file.metadata().with_context(of)?.len();
    ensure!(size <= FILE_MAX_BYTES, "{}: it is larger than 64 MB", of());
    let text = io::read_to_string(file).with_context(of)?;
    parse(&text).with_context(of)
}

/// Changes the file, which need not exist. Atomic, and one change at a time.
///
/// # Errors
/// If it cannot be read or written, or `change` fails: then it is unchanged.
pub fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<Entry>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let of = || format!("tokens file `{}`", path.display());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The directory is locked, not the file: that is replaced.
    let lock = File::open(directory).with_context(of)?;
    flock(&lock, FlockOperation::LockExclusive).with_context(of)?;
    let mut entries = if path.exists() {
        read(path)?
    } else {
        Vec::new()
    };
    let changed = change(&mut entries)?;
    let written = Written {
        token: entries.iter().map(Entry::written).collect(),
    };
    let text = format!("{HEADER}\n{}", toml::to_string(&written)?);
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(of)?;
    file.write_all(text.as_bytes()).with_context(of)?;
    let permissions = match path.metadata() {
        Ok(known) => {
            // The server must be able to read it as before.
            fchown(file.as_file(), Some(known.uid()), Some(known.gid()))
                .with_context(|| format!("{}: its owner cannot be kept", of()))?;
            known.permissions()
        }
        Err(_) => Permissions::from_mode(0o600),
    };
    file.as_file()
        .set_permissions(permissions)
        .with_context(of)?;
    file.as_file().sync_all().with_context(of)?;
    file.persist(path).with_context(of)?;
    lock.sync_all().with_context(of)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::NewToken;

    fn entry(name: &str) -> Entry {
        let token = NewToken::generate().unwrap();
        Entry {
            id: token.id.clone(),
            name: name.to_owned(),
            roles: [Role::Barista, Role::Scraper].into_iter().collect(),
            digest: token.digest(),
            subject: Some("bo".to_owned()),
            not_after: Some("2027-01-31T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn a_token_in_the_wrong_place_is_not_quoted_and_a_subject_is_in_nfc() {
        let token = NewToken::generate().unwrap();
        let entry = |change: &dyn Fn(&mut WrittenEntry)| {
            let mut written = entry("bo").written();
            change(&mut written);
            let text = toml::to_string(&Written {
                token: vec![written],
            })
            .unwrap();
            parse(&text)
        };
        let text = &*token.text;
        for wrong in [
            entry(&|entry| entry.id = text.to_owned()),
            entry(&|entry| entry.roles = vec![text.to_owned()]),
            entry(&|entry| entry.sha256 = text.to_owned()),
            entry(&|entry| entry.not_after = Some(text.to_owned())),
            parse(&format!("token = \"{text}\"")),
            parse(&format!("[[token]]\nroles = \"{text}\"")),
        ] {
            let error = format!("{:#}", wrong.unwrap_err());
            assert!(!error.contains(&text[17..]), "{error}");
        }
        let zoe = entry(&|entry| entry.subject = Some("Zoe\u{308}".to_owned())).unwrap();
        assert_eq!(zoe[0].subject.as_deref(), Some("Zo\u{eb}"));
    }

    #[test]
    fn what_was_written_is_read_and_a_failed_change_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let (one, other) = (entry("bo"), entry("eve"));
        for added in [&one, &other] {
            let add = |entries: &mut Vec<Entry>| {
                entries.push(added.clone());
                Ok(())
            };
            edit(&path, add).unwrap();
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(edit(&path, |_| -> anyhow::Result<()> { bail!("no") }).is_err());
        let read = read(&path).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", [&one, &other]));
        assert!(read[0].digest.is(&one.digest));
        // What is left of a change is the file alone.
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn each_fault_is_named_and_no_digest_is_printed() {
        let digest = "ab".repeat(32);
        let good = format!(
            "[[token]]\nid = \"0123456789ab\"\nname = \"bo\"\nroles = [\"barista\"]\nsha256 = \"{digest}\"\n"
        );
        assert_eq!(parse(&good).unwrap().len(), 1);
        assert_eq!(parse("").unwrap().len(), 0);
        for (text, said) in [
            (good.replace("9ab", "9AB"), "12 hexadecimal digits"),
            (good.replace("\"bo\"", "\"\""), "1 to 128 characters"),
            (good.replace("\"bo\"", "\"b\\no\""), "control characters"),
            (good.replace("\"barista\"", ""), "no role"),
            (
                good.replace("\"barista\"", "\"chef\""),
                "a role is unknown; roles are barista",
            ),
            (good.replace(&digest, &digest[1..]), "64 hexadecimal digits"),
            (format!("{good}not_after = \"soon\"\n"), "no time such as"),
            (format!("{good}colour = 7\n"), "line 6"),
            (format!("{good}{good}"), "is there twice"),
            (format!("{good}["), "line 6"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains(&digest[..32]), "{error}");
        }
    }
}
