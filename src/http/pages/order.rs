//! The order page. Each state is a section; `web/order.js` shows the one that applies.

use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::catalogue::Catalogue;
use super::{Frame, catalogue, cup};

/// The customers' page at `/`.
pub fn order_page(headers: &HeaderMap, uri: &Uri) -> Response {
    let texts = catalogue(headers, uri);
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let body = html! {
        body data-view="open" {
            main {
                p id="offline" class="notice warn" role="status" hidden {}
                (open(texts, host.unwrap_or("localhost")))
                (closed(texts))
                (placing(texts))
                (waiting(texts))
                (making(texts))
                (ready(texts))
                (refused(texts))
                (ended(texts))
            }
            p id="said" class="unseen" role="status" {}
            (cancelling(texts))
        }
    };
    let frame = Frame {
        name: "order",
        title: "order.title",
        body,
    };
    frame.answer(texts)
}

fn open(texts: &Catalogue, host: &str) -> Markup {
    html! {
        section id="open" {
            (cup())
            h1 id="greeting" tabindex="-1" { (texts.text("order.hello")) }
            p class="lead" { (texts.text("order.offer")) }
            p id="line" class="line" hidden {}
            noscript {
                p class="notice warn" { (texts.text("noscript.order")) }
                pre { code { "curl -X POST " (host) "/order/" } }
            }
            form id="form" autocomplete="on" {
                label for="name" {
                    (texts.text("order.name")) " " span class="quiet" { "(" (texts.text("order.optional")) ")" }
                }
                input type="text" id="name" name="name" maxlength="200" autocomplete="given-name" autocapitalize="words"
                    enterkeyhint="go";
                button type="submit" id="press" class="main" disabled { (texts.text("order.press")) }
                (choice("sound", texts.text("order.sound"), false))
                (choice("notify", texts.text("order.notify"), true))
            }
        }
    }
}

/// A check box with its label.
fn choice(id: &str, label: &str, hidden: bool) -> Markup {
    html! {
        label class="choice" for=(id) hidden[hidden] { input type="checkbox" id=(id); span { (label) } }
    }
}

fn closed(texts: &Catalogue) -> Markup {
    html! {
        section id="closed" hidden {
            (cup())
            h1 tabindex="-1" { (texts.text("order.closed")) }
            p id="closed-message" class="lead" {}
            p class="quiet" { (texts.text("order.closed_text")) }
        }
    }
}

fn placing(texts: &Catalogue) -> Markup {
    html! {
        section id="placing" hidden {
            (cup())
            h1 tabindex="-1" { (texts.text("order.placing")) }
        }
    }
}

/// The head of a ticket, with the number of the order.
fn number(texts: &Catalogue, id: &str) -> Markup {
    html! {
        h1 class="number" tabindex="-1" {
            span class="label" { (texts.text("order.number")) } " "
            strong id=(id) {}
        }
    }
}

fn waiting(texts: &Catalogue) -> Markup {
    html! {
        section id="waiting" class="ticket" hidden {
            (number(texts, "waiting-number"))
            p id="place-label" class="label" { (texts.text("order.place")) }
            p id="place" class="place" {}
            p id="estimate" class="lead" {}
            div id="ahead" class="ahead" aria-hidden="true" { @for _ in 0..12 { span {} } }
            p id="again-soon" class="notice calm" hidden { (texts.text("order.again_soon")) }
            p class="quiet" { (texts.text("order.keep_open")) }
            p id="cancel-failed" class="notice warn" role="alert" hidden {}
            button type="button" id="cancel" class="plain" { (texts.text("order.cancel")) }
        }
    }
}

fn making(texts: &Catalogue) -> Markup {
    html! {
        section id="making" class="ticket" hidden {
            (number(texts, "making-number"))
            (cup())
            p id="maker" class="lead strong" {}
            p id="making-for" class="quiet figures" {}
            p class="quiet" { (texts.text("order.no_cancel")) }
        }
    }
}

fn ready(texts: &Catalogue) -> Markup {
    html! {
        section id="ready" class="ticket done" hidden {
            (cup())
            h1 class="number" tabindex="-1" {
                strong id="ready-number" {} " "
                span class="word" { (texts.text("order.ready")) }
            }
            p id="collect" class="lead strong" {}
            p id="took" class="figures" {}
            button type="button" class="again main" { (texts.text("order.another")) }
        }
    }
}

fn refused(texts: &Catalogue) -> Markup {
    html! {
        section id="refused" hidden {
            (cup())
            h1 id="refused-title" tabindex="-1" {}
            p id="refused-text" class="lead" {}
            button type="button" id="retry" class="main figures" { (texts.text("order.try_again")) }
            p id="request" class="request" hidden {
                span class="quiet" { (texts.text("order.request")) } " "
                code id="request-id" {} " "
                button type="button" id="copy" class="plain" { (texts.text("order.copy")) }
            }
        }
    }
}

fn ended(texts: &Catalogue) -> Markup {
    html! {
        section id="ended" hidden {
            (cup())
            h1 id="ended-title" tabindex="-1" {}
            p id="ended-text" class="lead" {}
            button type="button" class="again main" { (texts.text("order.again")) }
        }
    }
}

fn cancelling(texts: &Catalogue) -> Markup {
    html! {
        dialog id="cancelling" aria-labelledby="cancelling-title" {
            h2 id="cancelling-title" { (texts.text("order.cancel_title")) }
            p { (texts.text("order.cancel_text")) }
            form method="dialog" class="row" {
                button value="no" class="main" autofocus { (texts.text("order.cancel_no")) }
                button value="yes" class="plain" { (texts.text("order.cancel_yes")) }
            }
        }
    }
}
