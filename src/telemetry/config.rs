//! The section `log`.

use garde::{Error, Validate};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Log {
    #[garde(skip)]
    pub format: LogFormat,
    #[garde(custom(|_: &str, (): &()| self.targets().map(drop).map_err(Error::new)))]
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    /// One JSON object per line.
    Json,
}

impl Log {
    /// Parses `level`.
    ///
    /// # Errors
    /// A sentence on what does not parse. [`Targets`] itself would take `warning` for a module, and log nothing else.
    pub fn targets(&self) -> Result<Targets, String> {
        let mut targets = Targets::new();
        for directive in self.level.split(',') {
            let directive = directive.trim();
            targets = match directive.split_once('=') {
                None => targets.with_default(self.level_of(directive)?),
                Some((module, level)) => {
                    let module = module.trim();
                    if !is_module(module) {
                        return Err(self.refused(&format!("{module:?} is not a module's path")));
                    }
                    targets.with_target(module, self.level_of(level)?)
                }
            };
        }
        Ok(targets)
    }

    fn level_of(&self, word: &str) -> Result<LevelFilter, String> {
        let word = word.trim().to_ascii_lowercase();
        if LEVELS.contains(&word.as_str())
            && let Ok(level) = word.parse()
        {
            return Ok(level);
        }
        Err(self.refused(&format!("{word:?} is not a level")))
    }

    fn refused(&self, why: &str) -> String {
        let [first @ .., last] = LEVELS;
        let levels = first.join(", ");
        let of = if self.level.contains([',', '=']) {
            format!(" in {:?}", self.level)
        } else {
            String::new()
        };
        format!(
            "{why}{of}: it must be {levels} or {last}, or a list such as info,odyssey::orders=debug"
        )
    }
}

/// Such as `odyssey::orders`.
fn is_module(path: &str) -> bool {
    path.split("::").all(|name| {
        let mut letters = name.chars();
        let first = letters.next();
        first.is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn log(level: &str) -> Log {
        Log {
            format: LogFormat::Json,
            level: level.to_owned(),
        }
    }

    #[test]
    fn every_level_lets_through_what_it_says() {
        for (level, target, most) in [
            ("off", "odyssey::app", None),
            ("error", "odyssey::app", Some(Level::ERROR)),
            ("warn", "odyssey::app", Some(Level::WARN)),
            ("info", "odyssey::app", Some(Level::INFO)),
            ("debug", "odyssey::app", Some(Level::DEBUG)),
            ("trace", "odyssey::app", Some(Level::TRACE)),
            (" INFO ", "odyssey::app", Some(Level::INFO)),
            (
                "info,odyssey::orders=debug",
                "odyssey::app",
                Some(Level::INFO),
            ),
            (
                "info, odyssey::orders = debug",
                "odyssey::orders::service",
                Some(Level::DEBUG),
            ),
            ("odyssey=warn", "odyssey::app", Some(Level::WARN)),
            ("odyssey=warn", "hyper", None),
            ("info,hyper=off", "hyper::proto", None),
        ] {
            let targets = log(level).targets().unwrap();
            let levels = [
                Level::ERROR,
                Level::WARN,
                Level::INFO,
                Level::DEBUG,
                Level::TRACE,
            ];
            let mut through = levels
                .into_iter()
                .filter(|level| targets.would_enable(target, level));
            assert_eq!(through.next_back(), most, "{level:?} for {target}");
        }
    }

    #[test]
    fn a_level_that_would_silence_the_log_by_mistake_is_refused_with_the_words_there_are() {
        for level in [
            "",
            " ",
            ",",
            "warning",
            "verbose",
            "fatal",
            "3",
            "info,",
            ",info",
            "info,,debug",
            "odyssey",
            "odyssey=",
            "odyssey=loud",
            "=debug",
            "odyssey::=debug",
            "odyssey::orders",
            "a b=info",
            "odyssey=debug=info",
            "info odyssey=debug",
            "[span]=info",
        ] {
            let refused = log(level).targets().expect_err(level);
            assert!(
                refused.contains("error, warn, info, debug, trace or off"),
                "{level:?}: {refused}"
            );
        }
    }
}
