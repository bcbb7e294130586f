//! `/ui/{file}`: scripts, style sheets, texts and images of the screens, embedded in the program.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::super::files::File;
use super::super::params::Path;
use super::super::problem::Problem;

pub(super) const ENGLISH: &str = include_str!("../../../web/i18n/en.json");
pub(super) const GERMAN: &str = include_str!("../../../web/i18n/de.json");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// Name, type, content.
const FILES: [(&str, &str, &[u8]); 15] = [
    ("base.css", CSS, include_bytes!("../../../web/base.css")),
    ("order.css", CSS, include_bytes!("../../../web/order.css")),
    ("board.css", CSS, include_bytes!("../../../web/board.css")),
    (
        "barista.css",
        CSS,
        include_bytes!("../../../web/barista.css"),
    ),
    (
        "operator.css",
        CSS,
        include_bytes!("../../../web/operator.css"),
    ),
    (
        "operator.js",
        JAVASCRIPT,
        include_bytes!("../../../web/operator.js"),
    ),
    (
        "page.js",
        JAVASCRIPT,
        include_bytes!("../../../web/page.js"),
    ),
    (
        "live.js",
        JAVASCRIPT,
        include_bytes!("../../../web/live.js"),
    ),
    ("qr.js", JAVASCRIPT, include_bytes!("../../../web/qr.js")),
    (
        "order.js",
        JAVASCRIPT,
        include_bytes!("../../../web/order.js"),
    ),
    (
        "board.js",
        JAVASCRIPT,
        include_bytes!("../../../web/board.js"),
    ),
    (
        "barista.js",
        JAVASCRIPT,
        include_bytes!("../../../web/barista.js"),
    ),
    ("en.json", JSON, ENGLISH.as_bytes()),
    ("de.json", JSON, GERMAN.as_bytes()),
    (
        "ready.svg",
        "image/svg+xml",
        include_bytes!("../../../web/ready.svg"),
    ),
];

/// The routes of the files.
pub fn assets() -> Router {
    Router::new().route("/ui/{file}", get(show))
}

async fn show(Path(name): Path<String>, headers: HeaderMap) -> Response {
    static COMPRESSED: LazyLock<Vec<(&str, File)>> = LazyLock::new(|| {
        let files = FILES.iter().map(|&(name, kind, content)| {
            (
                name,
                File::new(HeaderValue::from_static(kind), Bytes::from_static(content)),
            )
        });
        files.collect()
    });
    let file = COMPRESSED.iter().find(|(known, _)| *known == name);
    file.map_or_else(
        || Problem::no_such_path().into_response(),
        |(_, file)| file.answer(&headers, false),
    )
}

#[cfg(test)]
pub(super) fn exists(name: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == name)
}

/// The content of a file.
#[cfg(test)]
pub(super) fn text(name: &str) -> &'static str {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let (_, _, content) = file.unwrap_or_else(|| panic!("{name} is no file"));
    std::str::from_utf8(content).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_file_of_the_folder() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        for folder in [folder.clone(), folder.join("i18n")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let is_for_editors = name == "jsconfig.json" || entry.path().is_dir();
                assert!(is_for_editors || exists(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_module_imports_only_modules_that_are_served() {
        for (name, ..) in FILES.iter().filter(|(_, kind, _)| *kind == JAVASCRIPT) {
            for part in text(name).split(" from \"").skip(1) {
                let path = part.split('"').next().unwrap();
                assert!(
                    path.strip_prefix("./").is_some_and(exists),
                    "{name}: {path}"
                );
            }
        }
    }

    #[test]
    fn a_module_writes_no_markup_and_runs_no_text() {
        for (name, ..) in FILES.iter().filter(|(_, kind, _)| *kind == JAVASCRIPT) {
            // Names of XML are addresses.
            let text = text(name).replace("\"http://www.w3.org/2000/svg\"", "");
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "setAttribute(\"on",
                "setAttribute(\"style",
                ".style",
                "http://",
                "https://",
            ] {
                assert!(!text.contains(forbidden), "{name}: {forbidden}");
            }
        }
    }

    #[test]
    fn a_page_stays_light() {
        let bytes = |name: &str| text(name).len();
        let common: usize = ["base.css", "page.js", "live.js", "de.json"]
            .map(bytes)
            .iter()
            .sum();
        for page in ["order", "board", "barista", "operator"] {
            let own = bytes(&format!("{page}.js")) + bytes(&format!("{page}.css"));
            let own = own + if page == "board" { bytes("qr.js") } else { 0 };
            assert!(common + own < 90_000, "{page}: {} bytes", common + own);
        }
    }
}
