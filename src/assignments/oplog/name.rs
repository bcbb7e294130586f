use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use crate::values::id::unique;

/// A file that is being written.
const PLAIN: &str = ".ndjson";
/// A complete, compressed file.
const PACKED: &str = ".ndjson.gz";
/// A file that is being packed.
const PART: &str = ".ndjson.gz.part";

/// Length of the hour: `2026-11-21T15`.
const HOUR_CHARS: usize = 13;
const UUID_CHARS: usize = 36;
/// Longest part of an instance's name, in characters.
const INSTANCE_CHARS_MAX: usize = 64;

/// A segment's name, `<hour>-<instance>-<uuid>`. The destination is derived from it alone, so that every upload of the file has
/// the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// The name of a new segment whose first entry has this time.
    pub(super) fn new(at: Timestamp, instance: &str) -> Self {
        let hour = at.strftime("%Y-%m-%dT%H");
        Self(format!("{hour}-{instance}-{}", unique(Timestamp::now())))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let pattern = b"0000-00-00T00-";
        let begins = bytes.len() > pattern.len() + UUID_CHARS
            && bytes.iter().zip(pattern).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                like => byte == like,
            });
        let ends = text
            .get(text.len().checked_sub(UUID_CHARS)?..)
            .is_some_and(|end| Uuid::try_parse(end).is_ok());
        (begins && ends).then(|| Self(text.to_owned()))
    }

    /// `dt=2026-11-21`
    pub(super) fn day(&self) -> String {
        format!("dt={}", &self.0[..HOUR_CHARS - 3])
    }

    /// `<instance>-<uuid>.ndjson.gz`
    pub(super) fn stem(&self) -> String {
        format!("{}{PACKED}", &self.0[HOUR_CHARS + 1..])
    }

    /// `<prefix>/dt=2026-11-21/hr=15/<instance>-<uuid>.ndjson.gz`
    #[cfg(feature = "aws")]
    pub(super) fn key(&self, prefix: &str) -> String {
        let hour = &self.0[HOUR_CHARS - 2..HOUR_CHARS];
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{slash}{}/hr={hour}/{}", self.day(), self.stem())
    }

    /// Sorts names by their segments' begin: the UUIDs contain the time.
    pub(super) fn age(&self) -> &str {
        age(&self.0)
    }

    pub(super) fn plain(&self) -> String {
        format!("{}{PLAIN}", self.0)
    }

    pub(super) fn part(&self) -> String {
        format!("{}{PART}", self.0)
    }

    pub(super) fn packed(&self) -> String {
        format!("{}{PACKED}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn age(name: &str) -> &str {
    &name[name.len() - UUID_CHARS..]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Plain(Name),
    Part(Name),
    Packed(Name),
}

impl Found {
    /// None for a foreign file.
    pub(super) fn of(file: &str) -> Option<Self> {
        // The longest extension first: each is a suffix of another.
        [
            (PART, Self::Part as fn(Name) -> Self),
            (PACKED, Self::Packed),
            (PLAIN, Self::Plain),
        ]
        .into_iter()
        .find_map(|(ending, found)| Some(found(Name::parse(file.strip_suffix(ending)?)?)))
    }
}

/// The sort key of an archived file ([`Name::stem`]); None for a foreign file.
pub(super) fn archived_age(file: &str) -> Option<&str> {
    let stem = file.strip_suffix(PACKED)?;
    let end = stem.get(stem.len().checked_sub(UUID_CHARS)?..)?;
    Uuid::try_parse(end).ok()?;
    Some(end)
}

/// An instance's name with characters that are valid in names of files and objects.
pub(super) fn instance(given: &str) -> String {
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => letter,
        _ => '-',
    };
    let name: String = given.chars().take(INSTANCE_CHARS_MAX).map(plain).collect();
    if name.is_empty() {
        "odyssey".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_its_segment_goes() {
        let at = "2026-11-21T05:59:59.999999Z".parse().unwrap();
        let name = Name::new(at, "shop-1.local");
        assert_eq!(name.day(), "dt=2026-11-21");
        assert!(name.stem().starts_with("shop-1.local-"));
        assert!(name.stem().ends_with(".ndjson.gz"));
        assert_eq!(archived_age(&name.stem()), Some(name.age()));
        #[cfg(feature = "aws")]
        {
            let object = format!("dt=2026-11-21/hr=05/{}", name.stem());
            assert_eq!(name.key("logs"), format!("logs/{object}"));
            assert_eq!(name.key(""), object);
        }
    }

    #[test]
    fn names_sort_as_their_segments_began() {
        let names: Vec<_> = (0..1000)
            .map(|_| Name::new(Timestamp::UNIX_EPOCH, "a"))
            .collect();
        assert!(names.is_sorted_by(|one, next| one.age() < next.age()));
    }

    #[test]
    fn files_are_known_by_their_names_and_others_are_none_of_ours() {
        let name = Name::new(Timestamp::UNIX_EPOCH, "a");
        for (file, found) in [
            (name.plain(), Found::Plain(name.clone())),
            (name.part(), Found::Part(name.clone())),
            (name.packed(), Found::Packed(name.clone())),
        ] {
            assert_eq!(Found::of(&file), Some(found), "{file}");
        }
        let uuid = name.age();
        for other in [
            String::new(),
            name.to_string(),
            ".ndjson".to_owned(),
            format!("{uuid}.ndjson"),
            format!("1970-01-01T00-{uuid}.ndjsonx"),
            format!("1970-01-01x00-a-{uuid}.ndjson"),
            "1970-01-01T00-a-00000000-0000-0000-0000-00000000000ü.ndjson".to_owned(),
            "notes.txt".to_owned(),
        ] {
            assert_eq!(Found::of(&other), None, "{other}");
        }
        assert_eq!(archived_age("notes.ndjson.gz"), None);
    }

    #[test]
    fn an_instance_of_any_name_makes_a_good_file_name() {
        assert_eq!(instance("../Zoë's shop/1"), "..-Zo--s-shop-1");
        assert_eq!(instance(""), "odyssey");
        assert_eq!(instance(&"x".repeat(1000)).len(), INSTANCE_CHARS_MAX);
    }
}
