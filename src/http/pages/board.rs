//! The board of a shop: what is ready, in the making, and next. `web/board.js` fills it.

use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::{Frame, catalogue};

/// The page at `/board`. Its script reads `?kiosk=` and `?sound=`.
pub fn board_page(headers: &HeaderMap, uri: &Uri) -> Response {
    let texts = catalogue(headers, uri);
    let column = |name: &str, title: &str, hint: Markup, none: &str| {
        html! {
            section id=(name) class="column" aria-labelledby={ (name) "-title" } {
                h2 id={ (name) "-title" } { (title) (hint) }
                ul id={ (name) "-list" } {}
                p id={ (name) "-more" } class="more" hidden {}
                p id={ (name) "-none" } class="none" hidden { (none) }
            }
        }
    };
    let hint = html! { " " small { (texts.text("board.ready_hint")) } };
    let body = html! {
        body {
            p id="closed" class="notice warn" role="status" hidden {}
            main {
                h1 class="unseen" { (texts.text("board.title")) }
                noscript { p class="notice warn" { (texts.text("noscript.page")) } }
                (column("ready", texts.text("board.ready"), hint, texts.text("board.none_ready")))
                (column("making", texts.text("board.making"), html! {}, texts.text("board.none_making")))
                (column("next", texts.text("board.next"), html! {}, texts.text("board.none_next")))
            }
            footer {
                p id="clock" class="clock figures" {}
                p id="summary" class="figures" {}
                p class="here" {
                    span { (texts.text("board.here")) " " strong id="address" {} }
                    svg id="qr" class="qr" role="img" aria-label=(texts.text("board.qr")) hidden {}
                }
                button type="button" id="sound" class="plain" hidden { (texts.text("board.sound")) }
                p id="connection" class="connection figures" role="status" { (texts.text("connection.connecting")) }
            }
            p id="said" class="unseen" role="status" {}
        }
    };
    let frame = Frame {
        name: "board",
        title: "board.title",
        body,
    };
    frame.answer(texts)
}
