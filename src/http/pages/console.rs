//! The console on a barista's tablet. `web/barista.js` fills it.

use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::catalogue::Catalogue;
use super::{Frame, catalogue, cup};

pub fn console_routes() -> [UtoipaMethodRouter<()>; 1] {
    [routes!(show_console)]
}

/// The baristas' console
///
/// A page for browsers: cups in hand with their leases, the line, and what was made of late.
#[utoipa::path(
    get, path = "/barista", tag = "orders", security(("token" = ["barista"])),
    params(
        ("barista" = Option<String>, Query, description = "The barista's name. Default: the one that was entered on this device"),
        ("auto" = Option<String>, Query, description = "`1`: leases are extended by themselves while the page is visible"),
        ("lang" = Option<String>, Query, description = "`en` or `de`. Default: by `Accept-Language`"),
    ),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)),
)]
async fn show_console(uri: Uri, headers: HeaderMap) -> Response {
    console_page(&headers, &uri)
}

/// The page at `/barista`. Its script reads `?barista=` and `?auto=`.
pub fn console_page(headers: &HeaderMap, uri: &Uri) -> Response {
    let texts = catalogue(headers, uri);
    let body = html! {
        body {
            (bar(texts))
            div id="notices" class="notices" {
                p id="signed-out" class="notice bad" role="alert" hidden {
                    (texts.text("bar.signed_out")) " " a id="log-in" class="button" href="/login" { (texts.text("bar.log_in")) }
                }
                p id="problem" class="notice bad" role="alert" hidden {}
                p id="offline" class="notice warn" role="status" hidden {}
                p id="draining" class="notice warn" role="status" hidden { (texts.text("bar.draining")) }
                p id="closed" class="notice calm" role="status" hidden {}
                p id="paused" class="notice calm" role="status" hidden { (texts.text("bar.paused")) }
                noscript { p class="notice warn" { (texts.text("noscript.page")) } }
            }
            main {
                section class="hands" aria-label=(texts.text("bar.cups")) {
                    div id="cups" class="cups" {}
                    (idle(texts))
                }
                (side(texts))
            }
            p id="said" class="unseen" role="status" {}
            (who(texts))
            (help(texts))
        }
    };
    let frame = Frame {
        name: "barista",
        title: "bar.title",
        body,
    };
    frame.answer(texts)
}

fn bar(texts: &Catalogue) -> Markup {
    html! {
        header {
            h1 {
                span class="unseen" { (texts.text("bar.title")) ": " }
                button type="button" id="change" class="plain name" aria-label=(texts.text("bar.change")) { "…" }
            }
            p id="summary" class="summary figures" {}
            p id="connection" class="connection" role="status" { (texts.text("connection.connecting")) }
            button type="button" id="pause" class="plain" { (texts.text("bar.pause")) }
            button type="button" id="help-open" class="plain square" aria-label=(texts.text("bar.help")) { "?" }
        }
    }
}

/// What is shown in place of cups.
fn idle(texts: &Catalogue) -> Markup {
    html! {
        div id="idle" class="idle" {
            (cup())
            p id="idle-title" class="lead strong" { (texts.text("bar.none")) }
            p id="idle-text" class="quiet" {}
        }
    }
}

fn side(texts: &Catalogue) -> Markup {
    html! {
        aside {
            button type="button" id="take" class="main take" disabled { (texts.text("bar.take")) }
            p id="pull-state" class="quiet" {}
            section {
                h2 { (texts.text("bar.next")) }
                ol id="next" class="list" {}
            }
            section {
                h2 { (texts.text("bar.recent")) }
                ul id="recent" class="list" {}
            }
        }
    }
}

fn who(texts: &Catalogue) -> Markup {
    html! {
        dialog id="who" aria-labelledby="who-title" {
            form id="who-form" method="dialog" {
                h2 id="who-title" { (texts.text("bar.who")) }
                p { (texts.text("bar.who_text")) }
                label for="who-name" { (texts.text("bar.name")) }
                input type="text" id="who-name" required maxlength="64" autocomplete="nickname" autocapitalize="words";
                button class="main" { (texts.text("bar.start")) }
            }
        }
    }
}

fn help(texts: &Catalogue) -> Markup {
    let keys = [
        ("n", "bar.key.take"),
        ("1 … 9", "bar.key.ready_next"),
        ("⇧ 1 … 9", "bar.key.ready"),
        ("e 1", "bar.key.extend"),
        ("g 1", "bar.key.release"),
        ("p", "bar.key.pause"),
        ("?", "bar.key.help"),
    ];
    let settings = [
        ("set-keys", "bar.set.keys"),
        ("set-sound", "bar.set.sound"),
        ("set-auto", "bar.set.auto"),
    ];
    html! {
        dialog id="help" aria-labelledby="help-title" {
            form method="dialog" {
                h2 id="help-title" { (texts.text("bar.help")) }
                h3 { (texts.text("bar.keys")) }
                dl class="keys" {
                    @for (key, text) in keys { div { dt { kbd { (key) } } dd { (texts.text(text)) } } }
                }
                h3 { (texts.text("bar.settings")) }
                @for (id, text) in settings {
                    label class="choice" for=(id) { input type="checkbox" id=(id); span { (texts.text(text)) } }
                }
                label class="choice" for="set-cups" {
                    input type="number" id="set-cups" min="1" max="9" step="1" inputmode="numeric";
                    span { (texts.text("bar.set.cups")) }
                }
                button class="main" { (texts.text("bar.close")) }
            }
        }
    }
}
