//! The version of this build.

use std::sync::LazyLock;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Abbreviated to 12 digits; `unknown` if the build had no repository.
pub const COMMIT: &str = env!("ODYSSEY_COMMIT");

pub const FEATURES: &[&str] = &[
    #[cfg(feature = "aws")]
    "aws",
    #[cfg(feature = "jemalloc")]
    "jemalloc",
    #[cfg(feature = "redis")]
    "redis",
];

/// One line, such as `0.1.0 (commit 7bfede2c1f0a, features: aws, redis)`.
pub fn line() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| {
        let features = match FEATURES {
            [] => String::new(),
            features => format!(", features: {}", features.join(", ")),
        };
        format!("{VERSION} (commit {COMMIT}{features})")
    });
    &LINE
}
