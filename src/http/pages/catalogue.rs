//! Texts of the screens, by language: `web/i18n/`, which the pages' modules read, too.

use std::sync::LazyLock;

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

/// A language that the screens speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    German,
}

impl Language {
    const ALL: [Self; 2] = [Self::English, Self::German];

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// By the first subtag, as in `de-AT`.
    fn of_tag(tag: &str) -> Option<Self> {
        let first = tag.trim().split('-').next()?;
        let mut all = Self::ALL.into_iter();
        all.find(|language| first.eq_ignore_ascii_case(language.code()))
    }

    /// `?lang=`, else the best of `Accept-Language` (RFC 9110, section 12.5.4), else English.
    pub fn of_request(headers: &HeaderMap, query: Option<&str>) -> Self {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let asked = pairs.find_map(|(name, tag)| (name == "lang").then(|| Self::of_tag(&tag)));
        let accepted = || {
            let fields = headers.get_all(header::ACCEPT_LANGUAGE).iter();
            let ranges = fields
                .filter_map(|field| field.to_str().ok())
                .flat_map(|field| field.split(','));
            let known = ranges.filter_map(|range| {
                let (tag, quality) = range.split_once(';').unwrap_or((range, "q=1"));
                let quality = quality.trim().strip_prefix("q=")?.parse::<f32>().ok()?;
                (quality > 0.0).then_some((Self::of_tag(tag)?, quality))
            });
            // The first of equals.
            let best = known.reduce(|best, next| if next.1 > best.1 { next } else { best });
            best.map(|(language, _)| language)
        };
        asked.flatten().or_else(accepted).unwrap_or(Self::English)
    }
}

/// The texts of a language.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) language: Language,
    texts: Map<String, Value>,
}

impl Catalogue {
    pub(super) fn of(language: Language) -> &'static Self {
        static ALL: LazyLock<[Catalogue; 2]> = LazyLock::new(|| {
            [
                Catalogue::read(Language::English, super::assets::ENGLISH),
                Catalogue::read(Language::German, super::assets::GERMAN),
            ]
        });
        let [english, german] = &*ALL;
        match language {
            Language::English => english,
            Language::German => german,
        }
    }

    fn read(language: Language, json: &str) -> Self {
        // A test reads both.
        let texts = serde_json::from_str(json).unwrap_or_default();
        Self { language, texts }
    }

    /// The text of a key; the key itself if there is none, which a test rules out.
    pub(super) fn text(&self, key: &'static str) -> &str {
        let text = self.texts.get(key).and_then(Value::as_str);
        debug_assert!(text.is_some(), "there is no text `{key}`");
        text.unwrap_or(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::assets;
    use super::*;

    /// What a text has between braces, as `{n}`.
    fn holes(text: &str) -> BTreeSet<&str> {
        let parts = text.split('{').skip(1);
        parts.map(|part| part.split('}').next().unwrap()).collect()
    }

    #[test]
    fn every_language_has_the_same_keys_plurals_and_placeholders() {
        let [english, german] = Language::ALL.map(|language| &Catalogue::of(language).texts);
        let keys = |texts: &Map<String, Value>| texts.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(english), keys(german));
        assert!(english.len() > 100, "it was read");
        for (key, value) in english {
            let all = |value: &Value| match value {
                Value::String(text) => vec![text.clone()],
                Value::Object(forms) => {
                    let names: Vec<_> = forms.keys().map(String::as_str).collect();
                    assert_eq!(names, ["one", "other"], "{key}");
                    forms
                        .values()
                        .map(|form| form.as_str().unwrap().to_owned())
                        .collect()
                }
                other => panic!("{key} is {other}"),
            };
            let (ours, theirs) = (all(value), all(&german[key]));
            assert_eq!(ours.len(), theirs.len(), "{key}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(!theirs.trim().is_empty(), "{key}");
                assert_eq!(holes(ours), holes(theirs), "{key}");
            }
        }
    }

    #[test]
    fn every_text_is_used_and_every_text_that_is_used_exists() {
        let scripts = [
            "page.js",
            "order.js",
            "board.js",
            "barista.js",
            "operator.js",
        ]
        .map(assets::text);
        let frames = [
            include_str!("order.rs"),
            include_str!("board.rs"),
            include_str!("console.rs"),
            include_str!("operator.rs"),
        ];
        let sources = scripts.into_iter().chain(frames).collect::<String>();
        let texts = &Catalogue::of(Language::English).texts;
        for key in texts.keys() {
            // Problems are found by their type.
            let is_problem = key.starts_with("problem.");
            assert!(
                is_problem || sources.contains(&format!("\"{key}\"")),
                "{key} is not used"
            );
        }
        // Calls of `t`, and not of what ends in it.
        let calls = sources.match_indices("t(\"").filter(|&(at, _)| {
            let before = sources[..at].chars().next_back();
            before.is_none_or(|before| !before.is_alphanumeric())
        });
        for (at, call) in calls {
            let key = sources[at + call.len()..].split('"').next().unwrap();
            assert!(texts.contains_key(key), "{key} does not exist");
        }
    }

    #[test]
    fn the_query_decides_the_language_then_the_browser() {
        for (query, accepted, language) in [
            (None, "", Language::English),
            (Some("lang=de"), "en", Language::German),
            (Some("kiosk=1&lang=de-AT"), "en", Language::German),
            (Some("lang=fr"), "de", Language::German),
            (Some("lang="), "", Language::English),
            (None, "de-DE,de;q=0.9,en;q=0.8", Language::German),
            (None, "en-GB,en;q=0.9,de;q=0.8", Language::English),
            (None, "fr, de;q=0.3, en;q=0.2", Language::German),
            (None, "de;q=0, en;q=0.1", Language::English),
            (None, "de;q=x", Language::English),
            (None, "*", Language::English),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, accepted.parse().unwrap());
            assert_eq!(
                Language::of_request(&headers, query),
                language,
                "{query:?} {accepted}"
            );
        }
    }
}
