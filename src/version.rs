//! Which build this is.

use std::sync::LazyLock;

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, abbreviated to 12 digits; `unknown` if the build had no repository.
pub const COMMIT: &str = env!("ODYSSEY_COMMIT");

/// The optional Cargo features it was built with.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "aws")]
    "aws",
    #[cfg(feature = "redis")]
    "redis",
];

/// All of it in one line, such as `0.1.0 (commit 7bfede2c1f0a, features: aws, redis)`.
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
