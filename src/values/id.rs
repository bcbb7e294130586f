//! Ids.
//!
//! Clients choose most of them. Canonically equivalent texts are the same id: `Zoë` may be sent as three or four code
//! points. So an id is normalized to NFC (UAX #15) where it is read, and stored and compared in that form.

use std::borrow::Cow;

use jiff::Timestamp;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use uuid::Uuid;

/// The longest `Idempotency-Key`, in characters.
pub const KEY_CHARS_MAX: usize = 255;

/// An `Idempotency-Key`: 1 to [`KEY_CHARS_MAX`] visible ASCII characters.
pub fn key(text: &[u8]) -> Option<&str> {
    let fits = (1..=KEY_CHARS_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    str::from_utf8(text).ok().filter(|_| fits)
}

/// A new version 7 UUID. Times before 1970 become 1970.
pub fn unique(now: Timestamp) -> Uuid {
    if now < Timestamp::UNIX_EPOCH {
        return Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0));
    }
    Uuid::now_v7()
}

/// The text in NFC.
pub fn nfc(text: &str) -> Cow<'_, str> {
    // Nearly all ids are ASCII: one pass over words instead of one over characters.
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// The longest id in bytes of UTF-8: two per character. Latin, Greek, Cyrillic, Hebrew and Arabic ids may have `chars_max`
/// characters, others as many as fit. Bounded in bytes, because clients choose what is stored and indexed.
pub const fn bytes_max(chars_max: usize) -> usize {
    2 * chars_max
}

/// The id in NFC; `None` if it is empty, longer than `chars_max` or [`bytes_max`], or has a control character.
pub fn parse(text: &str, chars_max: usize) -> Option<Cow<'_, str>> {
    let id = nfc(text);
    let chars = if id.is_ascii() {
        id.len()
    } else {
        id.chars().take(chars_max + 1).count()
    };
    let fits = (1..=chars_max).contains(&chars) && id.len() <= bytes_max(chars_max);
    (fits && !id.chars().any(char::is_control)).then_some(id)
}

/// Whether the id can be the last segment of a path. Proxies decode it and resolve dot segments (RFC 3986, section 5.2.4),
/// so an id with such a segment cannot be addressed.
pub fn is_addressable(id: &str) -> bool {
    !id.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_has_no_control_characters_and_one_normal_form() {
        for (text, id) in [
            ("ada", Some("ada")),
            ("Zoe\u{308}", Some("Zo\u{eb}")),
            ("Zo\u{eb}", Some("Zo\u{eb}")),
            // HANGUL SYLLABLE GAG, decomposed.
            ("\u{1100}\u{1161}\u{11a8}", Some("\u{ac01}")),
            // Compatibility forms stay apart: NFC, not NFKC.
            ("\u{fb01}", Some("\u{fb01}")),
            ("123456", Some("123456")),
            ("1234567", None),
            // Six characters of two bytes, four of three, three of four: 12 bytes.
            (
                "\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}",
                Some("\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}"),
            ),
            (
                "\u{65e5}\u{65e5}\u{65e5}\u{65e5}",
                Some("\u{65e5}\u{65e5}\u{65e5}\u{65e5}"),
            ),
            ("\u{65e5}\u{65e5}\u{65e5}\u{65e5}1", None),
            (
                "\u{1f4e6}\u{1f4e6}\u{1f4e6}",
                Some("\u{1f4e6}\u{1f4e6}\u{1f4e6}"),
            ),
            ("\u{1f4e6}\u{1f4e6}\u{1f4e6}1", None),
            // Seven code points, six in NFC.
            ("12345e\u{301}", Some("12345\u{e9}")),
            ("", None),
            ("a\0", None),
            ("a\n", None),
            ("a\u{7f}", None),
            ("a\u{85}", None),
        ] {
            assert_eq!(parse(text, 6).as_deref(), id, "{text:?}");
        }
    }

    #[test]
    fn before_1970_ids_are_unique_too() {
        let before = Timestamp::from_second(-1).unwrap();
        assert_ne!(unique(before), unique(before));
        assert_eq!(unique(before).get_version_num(), 7);
    }

    #[test]
    fn an_id_with_a_dot_segment_cannot_be_addressed() {
        for (id, addressable) in [
            ("a/b", true),
            ("...", true),
            ("a..", true),
            ("..a/b", true),
            (".", false),
            ("..", false),
            ("../a", false),
            ("a/./b", false),
            ("a/..", false),
        ] {
            assert_eq!(is_addressable(id), addressable, "{id}");
        }
    }
}
