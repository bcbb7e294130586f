//! The screens: the customers' order page, the board, the baristas' console and the operator's page. A page is a frame in the client's language,
//! which modules in `web/` fill from the feeds and the JSON API. Nothing is inline, so that the content security policy can
//! forbid it; nothing comes from another origin.

mod assets;
mod board;
mod catalogue;
mod console;
mod operator;
mod order;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

pub use self::assets::assets;
pub use self::board::board_page;
use self::catalogue::Catalogue;
pub use self::catalogue::Language;
pub use self::console::{console_page, console_routes};
pub use self::operator::operator_page;
pub use self::order::order_page;

const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; manifest-src 'self'; \
     worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// What differs between the frames.
struct Frame {
    /// Of `/ui/<name>.js` and `/ui/<name>.css`.
    name: &'static str,
    /// Key of the title.
    title: &'static str,
    body: Markup,
}

impl Frame {
    fn answer(self, catalogue: &Catalogue) -> Response {
        let (name, language) = (self.name, catalogue.language.code());
        let markup = html! {
            (DOCTYPE)
            html lang=(language) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="theme-color" media="(prefers-color-scheme: light)" content="#f7f3ed";
                    meta name="theme-color" media="(prefers-color-scheme: dark)" content="#16110e";
                    title { (catalogue.text(self.title)) }
                    link rel="icon" id="icon" href="/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/ui/base.css";
                    link rel="stylesheet" href={ "/ui/" (name) ".css" };
                    link rel="modulepreload" href="/ui/live.js";
                    link rel="modulepreload" href="/ui/page.js";
                    link rel="preload" as="fetch" type="application/json" crossorigin href={ "/ui/" (language) ".json" };
                    script type="module" src={ "/ui/" (name) ".js" } {}
                }
                (self.body)
            }
        };
        let header = |name: HeaderName, value| (name, HeaderValue::from_static(value));
        let headers = [
            header(header::CONTENT_TYPE, "text/html; charset=utf-8"),
            header(header::CONTENT_LANGUAGE, language),
            header(header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
            header(header::REFERRER_POLICY, "no-referrer"),
            header(
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
            header(
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
            header(header::VARY, "Accept, Accept-Language"),
        ];
        (headers, markup.into_string()).into_response()
    }
}

/// Whether a client prefers a page to data.
pub fn prefers_page(headers: &HeaderMap) -> bool {
    super::html::prefers_html(headers)
}

/// The texts in the language that a request asks for.
fn catalogue(headers: &HeaderMap, uri: &Uri) -> &'static Catalogue {
    Catalogue::of(Language::of_request(headers, uri.query()))
}

/// A steaming cup. Its parts are shown and moved by the style sheet, depending on the state of the order.
fn cup() -> Markup {
    html! {
        svg class="cup" viewBox="0 0 96 96" aria-hidden="true" focusable="false" {
            g class="steam" {
                path d="M34 24c-5-6 5-9 0-16" {}
                path d="M48 24c-5-6 5-9 0-16" {}
                path d="M62 24c-5-6 5-9 0-16" {}
            }
            path class="handle" d="M72 44h6a12 12 0 0 1 0 24h-9" {}
            path class="body" d="M18 34h54v26a22 22 0 0 1-22 22h-10a22 22 0 0 1-22-22z" {}
            path class="coffee" d="M23 46h44v13a18 18 0 0 1-18 18h-8a18 18 0 0 1-18-18z" {}
            path class="saucer" d="M12 89h66" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page says, as text.
    async fn body(page: Response) -> String {
        let bytes = axum::body::to_bytes(page.into_body(), usize::MAX).await;
        String::from_utf8(bytes.unwrap().into()).unwrap()
    }

    async fn pages(uri: &'static str) -> [String; 4] {
        let (headers, uri) = (HeaderMap::new(), Uri::from_static(uri));
        [
            body(order_page(&headers, &uri)).await,
            body(board_page(&headers, &uri)).await,
            body(console_page(&headers, &uri)).await,
            body(operator_page(&headers, &uri)).await,
        ]
    }

    /// The values of an attribute.
    fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
        let parts = page.split(attribute).skip(1);
        parts.map(|part| part.split('"').next().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_page_names_only_files_that_are_served_and_has_nothing_inline() {
        for page in pages("/").await {
            let named = values(&page, "href=\"")
                .into_iter()
                .chain(values(&page, "src=\""));
            for path in named.filter(|path| path.starts_with("/ui/")) {
                assert!(assets::exists(path.trim_start_matches("/ui/")), "{path}");
            }
            for forbidden in [" style=", "<style", "http://", "https://", "javascript:"] {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
            let is_handler = |part: &&str| {
                let name = part.split_once('=').map_or("", |(name, _)| name);
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            };
            assert_eq!(page.split(" on").skip(1).find(is_handler), None);
        }
    }

    #[tokio::test]
    async fn every_id_that_a_module_looks_up_is_in_its_page_once() {
        for (page, name) in pages("/")
            .await
            .iter()
            .zip(["order", "board", "barista", "operator"])
        {
            let script = assets::text(&format!("{name}.js"));
            for id in values(script, "$(\"").into_iter().chain(["said"]) {
                let times = page.matches(&format!(" id=\"{id}\"")).count();
                assert_eq!(times, 1, "{id} in the page of {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_page_is_in_the_language_that_was_asked_for() {
        for page in pages("/?lang=de").await {
            assert!(page.contains("<html lang=\"de\">"), "{page}");
            let english = pages("/?lang=en").await;
            assert!(!english.contains(&page), "{page}");
        }
    }
}
