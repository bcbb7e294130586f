//! What screens show: the board of the customers, the line of the staff. Each as JSON and as an event stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::super::error::Unavailable;
use super::super::model::{Closed, Survey};
use super::super::screens::Screens;
use super::shown::{Board, Door, LineState};
use super::{Desk, checked_name};
use crate::flood::Admission;
use crate::flood::Ask;
use crate::flood::routes::Asker;
use crate::http::Problem;
use crate::http::body::{Ignored, Json};
use crate::http::caching::no_store;
use crate::http::config::{BoardKind, Pages};
use crate::http::feed::{Feed, Sent, Source, accepts_events};
use crate::http::pages::{board_page, prefers_page};
use crate::http::params::Query;
use crate::http::responses::{IgnoredBody, JsonBody, Limited, NotFound, Parameters};
use crate::values::json::{Fields, Read};

/// Between two states of the board.
const BOARD_EVERY: Duration = Duration::from_secs(1);
/// Between two states of the line.
const LINE_EVERY: Duration = Duration::from_millis(250);
/// A state is sent this often without a change: a crew leaves without one.
const SELDOM: Duration = Duration::from_secs(15);

const LANGUAGES_MAX: usize = 10;
const MESSAGE_CHARS_MAX: usize = 200;

pub(super) fn board_routes() -> [UtoipaMethodRouter<Desk>; 1] {
    [routes!(show_board)]
}

pub(super) fn line_routes() -> [UtoipaMethodRouter<Desk>; 2] {
    [routes!(show_line), routes!(set_door)]
}

/// The board
///
/// Who is ready, whose order is being made, and who is next, by pick-up number. With `Accept: text/event-stream` a stream of
/// `board` events, each with the whole board, whenever it changes, at most one in a second. A page for clients that prefer HTML.
#[utoipa::path(
    get, path = "/board", tag = "orders", security(()),
    params(
        ("Accept" = Option<String>, Header, description = "`text/event-stream` for a stream, `text/html` for a page"),
        ("lang" = Option<String>, Query, description = "Language of the page: `en` or `de`. Default: by `Accept-Language`"),
        ("kiosk" = Option<String>, Query, description = "`1`: the page is on a television"),
        ("sound" = Option<String>, Query, description = "`1`: the page plays a sound for each order that is ready"),
    ),
    responses(
        IgnoredBody,
        Limited,
        NotFound,
        Unavailable,
        (status = 200, description = "The board as it is", content(
            (Board = "application/json"),
            (String = "text/event-stream"),
            (String = "text/html"),
        )),
    ),
)]
async fn show_board(
    asker: Asker,
    State(desk): State<Desk>,
    uri: Uri,
    headers: HeaderMap,
    _: Ignored,
) -> axum::response::Result<Response> {
    let Pages {
        enabled,
        board,
        ready_for,
        ..
    } = desk.pages;
    if board == BoardKind::Off {
        return Err(no_board().into());
    }
    if enabled && prefers_page(&headers) {
        return Ok(board_page(&headers, &uri));
    }
    let render = move |survey: &Survey| Board::of(survey, board, ready_for);
    if !accepts_events(&headers) {
        let survey = desk.screens.survey().await.map_err(Problem::from)?;
        return Ok(vary_by_accept(no_store(&render(&survey))));
    }
    // Flood control counts it while it is open.
    let admission = asker.admit(Ask::Watch)?;
    let feed = desk.feeds.open()?;
    let screen = Screen::new("board", BOARD_EVERY, &desk.screens, Some(admission), render);
    Ok(open(feed, screen).await?)
}

/// Parameters of the line.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OfBarista {
    /// Only this barista's cups, by name; 1 to 64 characters.
    #[param(min_length = 1, max_length = 64)]
    barista: Option<String>,
}

/// The line
///
/// Who is next, who works on what, and what was ready last. With `Accept: text/event-stream` a stream of `line` events, each
/// with all of it, whenever it changes, at most four in a second.
#[utoipa::path(
    get, path = "/line", tag = "orders", security(("token" = ["barista"])),
    params(OfBarista, ("Accept" = Option<String>, Header, description = "`text/event-stream` for a stream")),
    responses(
        IgnoredBody,
        Parameters,
        Unavailable,
        (status = 200, description = "The line as it is", content(
            (LineState = "application/json"),
            (String = "text/event-stream"),
        )),
    ),
)]
async fn show_line(
    State(desk): State<Desk>,
    Query(OfBarista { barista }): Query<OfBarista>,
    headers: HeaderMap,
    _: Ignored,
) -> Result<Response, Problem> {
    let barista = barista.as_deref().map(checked_name).transpose()?;
    let render = move |survey: &Survey| LineState::of(survey, barista.as_deref());
    if !accepts_events(&headers) {
        return Ok(vary_by_accept(no_store(&render(
            &*desk.screens.survey().await?,
        ))));
    }
    let feed = desk.feeds.open()?;
    let screen = Screen::new("line", LINE_EVERY, &desk.screens, None, render);
    open(feed, screen).await
}

/// Opens or closes the line.
#[derive(Debug, ToSchema)]
#[schema(as = NewDoor)]
pub(super) struct NewDoor {
    /// Whether new orders are taken.
    open: bool,
    /// What customers read while it is closed: a text of 1 to 200 characters for each of at most 10 languages, such as `en`.
    #[schema(required = false, value_type = Option<BTreeMap<String, String>>)]
    message: BTreeMap<String, String>,
    /// When it is expected to open again. It does not open by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl Read for NewDoor {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let open = fields.flag("open");
        let until = fields.maybe("until", |fields| fields.time("until", false));
        let message = messages(fields);
        Some(Self {
            open: open?,
            until: until?,
            message: message?,
        })
    }
}

fn messages(fields: &mut Fields<'_>) -> Option<BTreeMap<String, String>> {
    let Some(value) = fields.look("message") else {
        return Some(BTreeMap::new());
    };
    let is_language = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (2..=35).contains(&text.len()) && text.bytes().all(is_plain)
    };
    let text = |(language, text): (&String, &Value)| {
        let text = text.as_str()?;
        let fits = (1..=MESSAGE_CHARS_MAX).contains(&text.chars().count());
        (fits && is_language(language)).then(|| (language.clone(), text.to_owned()))
    };
    let texts = value
        .as_object()
        .filter(|texts| texts.len() <= LANGUAGES_MAX);
    let read = texts.and_then(|texts| texts.iter().map(text).collect());
    read.or_else(|| {
        fields.wrong(
            "message",
            format!("It must be an object of at most {LANGUAGES_MAX} texts of 1 to {MESSAGE_CHARS_MAX} characters, each under its language, such as `en`."),
        )
    })
}

/// Open or close the line
///
/// While it is closed, new orders are answered 503 with the message; those in line are served. At every server of a shared
/// line.
#[utoipa::path(
    put, path = "/line/door", tag = "orders", security(("token" = ["operator"])),
    request_body = NewDoor,
    responses(
        JsonBody,
        Unavailable,
        (status = 200, description = "As it is from now on", body = Door),
    ),
)]
async fn set_door(
    State(desk): State<Desk>,
    Json(NewDoor {
        open,
        message,
        until,
    }): Json<NewDoor>,
) -> Result<Response, Problem> {
    let closed = (!open).then(|| Arc::new(Closed { message, until }));
    let door = Door::of(closed.as_deref());
    desk.orders.shut(closed).get().await?;
    Ok(no_store(&door))
}

fn vary_by_accept(mut response: Response) -> Response {
    let by_accept = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, by_accept);
    response
}

fn no_board() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-board",
        "There is no board",
        "The staff have switched the board off.",
    )
}

/// A survey, rendered again and again.
struct Screen<F> {
    name: &'static str,
    /// Between two events.
    every: Duration,
    screens: Screens,
    changes: watch::Receiver<()>,
    render: F,
    first: Option<Arc<Survey>>,
    /// When the next event may be sent.
    next_at: Instant,
    _admission: Option<Admission>,
}

/// The first state is looked up before the answer begins: without a store it is a problem.
async fn open<F, T>(feed: Feed, mut screen: Screen<F>) -> Result<Response, Problem>
where
    F: Fn(&Survey) -> T + Send + Sync + 'static,
    T: Serialize,
{
    screen.first = Some(screen.screens.survey().await?);
    Ok(feed.answer(screen))
}

impl<F> Screen<F> {
    fn new(
        name: &'static str,
        every: Duration,
        screens: &Screens,
        admission: Option<Admission>,
        render: F,
    ) -> Self {
        Self {
            name,
            every,
            changes: screens.changes(),
            screens: screens.clone(),
            render,
            first: None,
            next_at: Instant::now(),
            _admission: admission,
        }
    }

    async fn survey(&mut self) -> Arc<Survey> {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            // The senders are there as long as the line.
            let _ = timeout(SELDOM, self.changes.changed()).await;
            sleep_until(self.next_at).await;
            self.changes.mark_unchanged();
            match self.screens.survey().await {
                Ok(survey) => return survey,
                // A client keeps what it has.
                Err(Unavailable) => self.next_at = Instant::now() + BOARD_EVERY,
            }
        }
    }
}

impl<F, T> Source for Screen<F>
where
    F: Fn(&Survey) -> T + Send + Sync + 'static,
    T: Serialize,
{
    async fn next(&mut self) -> Option<Sent> {
        let survey = self.survey().await;
        self.next_at = Instant::now() + self.every;
        let json = serde_json::to_string(&(self.render)(&survey)).ok()?;
        Some(Sent::Event(self.name, json))
    }
}
