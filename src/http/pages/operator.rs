//! The operator's page. `web/operator.js` fills it from `/overview`.

use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::catalogue::Catalogue;
use super::{Frame, catalogue};

/// The page at `/` of the staff's listener. Its places are below `#/`, such as `#/orders/{id}`.
pub fn operator_page(headers: &HeaderMap, uri: &Uri) -> Response {
    let texts = catalogue(headers, uri);
    let body = html! {
        body {
            (bar(texts))
            div class="notices" {
                p id="signed-out" class="notice bad" role="alert" hidden {
                    (texts.text("op.signed_out")) " " a href="/login" { (texts.text("op.log_in")) }
                }
                p id="closed" class="notice warn" role="status" hidden {}
                p id="failed" class="notice bad" role="alert" hidden {}
                noscript { p class="notice warn" { (texts.text("noscript.page")) } }
            }
            main id="overview" {
                h1 class="unseen" { (texts.text("op.title")) }
                (strip(texts))
                div class="panels" {
                    div { (line(texts)) (flood(texts)) (problems(texts)) }
                    div { (engines(texts)) (drones(texts)) (couriers(texts)) (packages(texts)) }
                    div { (day(texts)) }
                }
            }
            (thing(texts))
            (footer(texts))
            p id="said" class="unseen" role="status" {}
            (confirm(texts))
        }
    };
    let frame = Frame {
        name: "operator",
        title: "op.title",
        body,
    };
    frame.answer(texts)
}

fn bar(texts: &Catalogue) -> Markup {
    html! {
        header {
            a class="home" href="#/" { "Odyssey" }
            div class="search" role="search" {
                input type="text" id="search" role="combobox" aria-expanded="false" aria-controls="found" aria-autocomplete="list"
                    aria-label=(texts.text("op.search")) placeholder=(texts.text("op.search_hint")) autocomplete="off" spellcheck="false" maxlength="200";
                kbd aria-hidden="true" { "/" }
                ul id="found" role="listbox" aria-label=(texts.text("op.found")) hidden {}
            }
            p id="connection" class="connection" role="status" { (texts.text("connection.connecting")) }
            button type="button" id="freeze" class="plain" aria-pressed="false" { (texts.text("op.freeze")) }
        }
    }
}

/// Figures, each of which leads to its panel.
fn strip(texts: &Catalogue) -> Markup {
    let figures = [
        ("k-waiting", "line", "op.k.waiting"),
        ("k-oldest", "line", "op.k.oldest"),
        ("k-brewing", "line", "op.k.brewing"),
        ("k-idle", "line", "op.k.idle"),
        ("k-rate", "line", "op.k.rate"),
        ("k-wait", "line", "op.k.wait"),
        ("k-blocked", "flood", "op.k.blocked"),
        ("k-problems", "problems", "op.k.problems"),
        ("k-engines", "engines", "op.k.engines"),
        ("k-stale", "drones", "op.k.stale"),
        ("k-unassigned", "day", "op.k.unassigned"),
        ("k-parked", "couriers", "op.k.parked"),
    ];
    html! {
        ul class="strip" aria-label=(texts.text("op.figures")) {
            @for (id, panel, text) in figures {
                li { a id=(id) href={ "#" (panel) } { strong class="figures" { "–" } span { (texts.text(text)) } } }
            }
        }
    }
}

/// A panel that folds. `path`: where its data is.
fn panel(texts: &Catalogue, id: &str, title: &'static str, path: &str, content: &Markup) -> Markup {
    html! {
        details class="panel" id=(id) open {
            summary { h2 { (texts.text(title)) } span class="sum figures" id={ (id) "-sum" } {} }
            div class="content" {
                (content)
                p class="source" {
                    a href=(path) { (texts.text("op.as_json")) }
                    button type="button" class="copy" data-path=(path) { (texts.text("op.copy_curl")) }
                }
            }
        }
    }
}

/// A table whose rows are the page's to fill, and what is said without any.
fn table(
    texts: &Catalogue,
    id: &str,
    columns: &[(&'static str, bool)],
    none: &'static str,
) -> Markup {
    html! {
        div class="scrolls" tabindex="0" role="group" aria-label=(texts.text(columns[0].0)) hidden id={ (id) "-box" } {
            table {
                thead { tr { @for (column, is_number) in columns { th scope="col" class=[is_number.then_some("number")] { (texts.text(column)) } } } }
                tbody id={ (id) "-rows" } {}
            }
        }
        p class="none quiet" id={ (id) "-none" } { (texts.text(none)) }
    }
}

fn line(texts: &Catalogue) -> Markup {
    let charts = [
        ("chart-placed", "op.placed"),
        ("chart-finished", "op.finished"),
    ];
    let content = html! {
        div class="charts" {
            @for (id, text) in charts {
                figure {
                    figcaption { (texts.text(text)) " " strong class="figures" id={ (id) "-now" } { "–" } }
                    svg id=(id) viewBox="0 0 240 40" preserveAspectRatio="none" role="img" aria-label=(texts.text(text)) {}
                }
            }
        }
        dl class="facts" {
            div { dt { (texts.text("op.wait_times")) } dd id="wait-times" class="figures" { "–" } }
            div { dt { (texts.text("op.brew_times")) } dd id="brew-times" class="figures" { "–" } }
        }
        (table(texts, "cups", &[
            ("op.barista", false), ("op.cup", false), ("op.since", true), ("op.lease", true), ("op.attempt", true),
        ], "op.no_cups"))
        p id="first" class="quiet" {}
        p class="actions" id="door-actions" hidden { button type="button" id="door" class="plain" { (texts.text("op.close_line")) } }
    };
    panel(texts, "line", "op.line", "/overview", &content)
}

fn flood(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.address", false),
        ("op.reason", false),
        ("op.left", true),
        ("op.refused", true),
        ("op.action", true),
    ];
    let content = table(texts, "blocked", &columns, "op.no_blocked");
    panel(texts, "flood", "op.flood", "/flood", &content)
}

fn problems(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.time", false),
        ("op.status", false),
        ("op.request", false),
        ("op.what", false),
        ("op.request_id", false),
    ];
    let content = table(texts, "recent", &columns, "op.no_problems");
    panel(texts, "problems", "op.problems", "/problems", &content)
}

fn engines(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.engine", false),
        ("op.state", false),
        ("op.queue", true),
        ("op.commit", true),
    ];
    let content = table(texts, "engine", &columns, "op.no_engines");
    panel(texts, "engines", "op.engines", "/engines", &content)
}

fn day(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.driver", false),
        ("op.held", true),
        ("op.accepted", true),
        ("op.on_way", true),
        ("op.done", true),
        ("op.failed", true),
    ];
    let content = table(texts, "driver", &columns, "op.no_plan");
    panel(texts, "day", "op.day", "/assignments/summary", &content)
}

fn drones(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.drone", false),
        ("op.state", false),
        ("op.silent", true),
        ("op.events", true),
    ];
    let content = table(texts, "drone", &columns, "op.no_drones");
    panel(texts, "drones", "op.drones", "/deliveries", &content)
}

fn couriers(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.zone", false),
        ("op.available", true),
        ("op.away", true),
        ("op.given", true),
        ("op.spread", true),
        ("op.parked", true),
    ];
    let content = table(texts, "zone", &columns, "op.no_couriers");
    panel(
        texts,
        "couriers",
        "op.couriers",
        "/couriers/zones",
        &content,
    )
}

fn packages(texts: &Catalogue) -> Markup {
    let columns = [
        ("op.type", false),
        ("op.delivered", true),
        ("op.dropped", true),
    ];
    let content = table(texts, "type", &columns, "op.no_packages");
    panel(texts, "packages", "op.packages", "/statistics", &content)
}

/// The place of one thing, in place of the overview.
fn thing(texts: &Catalogue) -> Markup {
    html! {
        main id="thing" hidden {
            p { a href="#/" { "← " (texts.text("op.back")) } }
            h1 id="thing-title" tabindex="-1" {}
            p id="thing-none" class="notice warn" hidden {}
            dl id="thing-facts" class="facts wide" {}
            div id="thing-tables" {}
            details { summary { (texts.text("op.raw")) } pre id="thing-raw" tabindex="0" {} }
        }
    }
}

fn footer(texts: &Catalogue) -> Markup {
    html! {
        footer {
            p id="build" class="quiet" {}
            nav aria-label=(texts.text("op.links")) {
                ul id="links" {
                    li { a href="/barista" { (texts.text("bar.title")) } }
                    li { a href="/docs" { (texts.text("op.docs")) } }
                    li { a href="/metrics" { (texts.text("op.metrics")) } }
                }
            }
        }
    }
}

fn confirm(texts: &Catalogue) -> Markup {
    html! {
        dialog id="confirm" aria-labelledby="confirm-title" {
            form method="dialog" {
                h2 id="confirm-title" {}
                p id="confirm-text" {}
                div id="confirm-fields" hidden {
                    label for="confirm-message" { (texts.text("op.message")) }
                    input type="text" id="confirm-message" maxlength="200";
                }
                div class="row" {
                    button value="yes" class="main" id="confirm-yes" {}
                    button value="no" class="plain" { (texts.text("op.cancel")) }
                }
            }
        }
    }
}
