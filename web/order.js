/**
 * The order page. The order's idempotency key is stored before the request is sent; whatever breaks afterwards, the same
 * request with the same key continues the same order. One tab sends it, all tabs show it.
 */

import { Retry, problem, readStream, share } from "./live.js";
import { $, Announcer, about, chime, clock, duration, hasText, keepAwake, language, show, stored, t, timeOfDay, write } from "./page.js";

/** @typedef {import("./live.js").Problem} Problem */
/** What is stored. @typedef {{key: string, customer: string, placed: number, id?: string}} Order */
/**
 * What is shown. `order`: as the server describes it. `lost`: since when there is no connection, and how long the place is kept.
 * @typedef {{view: "open" | "placing" | "waiting" | "making" | "ready" | "refused" | "ended", order?: any,
 *   problem?: Problem, why?: "cancelled" | "lost", placed?: number, at?: number, lost?: {at: number, until: number}}} State
 */
/** @typedef {(event: string, data?: any) => void} Emit */

const VIEWS = ["open", "closed", "placing", "waiting", "making", "ready", "refused", "ended"];
/** For so long the server is asked to keep the place of a lost connection. */
const KEEP_S = 900;
/** A key that the server never answered is forgotten after the time for which it would keep the place. */
const UNANSWERED_MAX_MS = KEEP_S * 1000;
const READY_SHOWN_MS = 5 * 60_000;
const BOARD_EVERY_MS = 15_000;

const announcer = new Announcer();
/** @type {State} */
let state = { view: "open" };
/** @type {any} How long the line is, and whether it is open; null while unknown. */
let board = null;
let wake = () => {};
/** By this tab's button. */
let isCancelled = false;

const ready = stored.read("ready");
if (ready && Date.now() - ready.at < READY_SHOWN_MS) state = ready;

// --- The order ---

/** Takes or continues the stored order, one after the other. @param {Emit} emit */
async function lead(emit) {
  for (;;) {
    /** @type {Order | null} */
    const order = stored.read("order");
    if (!order) await new Promise((resolve) => (wake = () => resolve(0)));
    else if (!order.id && Date.now() - order.placed > UNANSWERED_MAX_MS) stored.write("order", null);
    else await hold(order, emit);
  }
}

/** Holds an order until it is final. @param {Order} order @param {Emit} emit */
async function hold(order, emit) {
  const retry = new Retry();
  /** @type {State} */
  let current = state.view === "waiting" || state.view === "making" ? state : { view: "placing" };
  let [isFinal, keep, requestId, lostAt] = [false, KEEP_S, "", 0];
  const update = (/** @type {State} */ next) => emit("state", (current = next));
  const end = (/** @type {State} */ last) => {
    isFinal = true;
    stored.write("order", null);
    stored.write("ready", last.view === "ready" ? last : null);
    update({ ...last, at: Date.now() });
  };
  let retryMs = 0;
  const on = {
    opened(/** @type {Response} */ response) {
      const applied = /keep=(\d+)/.exec(response.headers.get("preference-applied") ?? "");
      if (applied) keep = Number(applied[1]);
      requestId = response.headers.get("x-request-id") ?? "";
    },
    message(/** @type {string} */ event, /** @type {any} */ data) {
      [lostAt, retryMs] = [0, 0];
      retry.reset();
      if (event === "waiting" || event === "brewing") {
        if (order.id !== data.order_id) stored.write("order", Object.assign(order, { id: data.order_id }));
        update({ view: event === "waiting" ? "waiting" : "making", order: data, at: Date.now() });
      } else if (event === "ready") end({ view: "ready", order: data });
      else if (event === "cancelled") end({ view: "ended", why: "cancelled" });
      else if (event === "blocked") end({ view: "refused", problem: { ...problem(data), requestId } });
      else if (event === "stopping") retryMs = problem(data).retryMs;
    },
  };
  update(current);
  while (!isFinal) {
    retryMs = 0;
    try {
      // A new order with an old key would be a surprise: first see whether the server still has the order.
      if (order.id && !(await isOpen(order.id))) end({ view: "ended", why: isCancelled ? "cancelled" : "lost", placed: order.placed });
      else {
        const refused = await readStream("/order/", requestFor(order), on);
        if (refused && endsOrder(refused, order)) refuse(refused, end);
        else if (refused) retryMs = refused.retryMs;
      }
    } catch {
      // The connection failed: try again.
    }
    if (isFinal) return;
    lostAt ||= Date.now();
    update({ ...current, lost: { at: lostAt, until: lostAt + keep * 1000 } });
    await retry.wait(retryMs);
  }
}

/** The same request each time: the server compares the body of a key. @param {Order} order @returns {RequestInit} */
function requestFor({ key, customer }) {
  /** @type {Record<string, string>} */
  const headers = { "Idempotency-Key": key, Prefer: `keep=${KEEP_S}` };
  if (!customer) return { method: "POST", headers };
  return { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify({ customer }) };
}

/** Whether the server has an order, and it was not cancelled while its customer was away. @param {string} id */
async function isOpen(id) {
  const answer = await fetch(`/orders/${id}`, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (answer.ok) return (await answer.json()).status !== "cancelled";
  if (answer.status === 404) return false;
  throw new Error(`status ${answer.status}`);
}

/** Whether an error is the end of an order, and not one of a server that is busy or stopping. @param {Problem} error @param {Order} order */
function endsOrder({ status, slug }, order) {
  if (status === 429) return !order.id || slug === "cut-off";
  if (status >= 500) return !order.id && (slug === "closed" || slug === "line-full");
  return status >= 400 && status !== 408;
}

/** @param {Problem} refused @param {(last: State) => void} end */
function refuse(refused, end) {
  if (refused.slug === "order-cancelled") return end({ view: "ended", why: "cancelled" });
  if (refused.slug !== "closed") return end({ view: "refused", problem: refused });
  board = { ...board, open: false, message: refused.message ?? board?.message };
  end({ view: "open" });
  readBoard();
}

const emit = share("order", lead, (event, data) => {
  if (event !== "state") return;
  const before = state;
  state = data;
  render();
  report(before);
});

function press() {
  isCancelled = false;
  if (!stored.read("order")) {
    const customer = $("name").value.trim();
    stored.write("customer", customer);
    stored.write("order", { key: newKey(), customer, placed: Date.now() });
  }
  stored.write("ready", null);
  emit("state", { view: "placing" });
  wake();
}

/** `randomUUID` exists only with HTTPS and on localhost. */
function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function cancel() {
  show($("cancel-failed"), null);
  const answer = await fetch(`/orders/${state.order.order_id}`, { method: "DELETE" }).catch(() => null);
  // The stream reports it, unless its connection is lost.
  if (answer?.ok) isCancelled = true;
  if (!answer || answer.status >= 500) show($("cancel-failed"), t("order.cancel_failed"));
  else if (answer.status === 409) show($("cancel-failed"), t("order.cancel_late"));
}

// --- The line, while there is no order ---

async function readBoard() {
  if (document.visibilityState !== "visible" || !["open", "refused"].includes(state.view)) return;
  const answer = await fetch("/board", { headers: { Accept: "application/json" }, cache: "no-cache" }).catch(() => null);
  if (answer?.ok) {
    board = await answer.json();
    render();
  }
}

/** @param {Record<string, string> | undefined} message */
const inOurLanguage = (message) => message && (message[language] ?? message.en ?? Object.values(message)[0]);

// --- What is shown ---

function render() {
  const view = state.view === "open" && board?.open === false ? "closed" : state.view;
  const isNew = document.body.dataset.view !== view;
  const hadFocus = document.activeElement?.closest("section") ?? null;
  document.body.dataset.view = view;
  for (const id of VIEWS) $(id).hidden = id !== view;
  ({ open: renderOpen, closed: renderClosed, placing() {}, waiting: renderWaiting, making: renderMaking, ready: renderReady, refused: renderRefused, ended: renderEnded })[view]();
  renderLost();
  document.title = title(view);
  $("icon").href = view === "ready" ? "/ui/ready.svg" : "/icon.svg";
  keepAwake(view === "making" || (view === "waiting" && state.order.position <= 3));
  if (view !== "waiting" && $("cancelling").open) $("cancelling").close("no");
  // What had the focus is hidden now.
  if (isNew && hadFocus?.hidden) $(view).querySelector("h1").focus();
}

/** @param {string} view */
function title(view) {
  const { number, position: n } = state.order ?? {};
  if (view === "waiting") return t("order.tab_place", { number, n });
  if (view === "making") return t("order.tab_making", { number });
  return view === "ready" ? t("order.tab_ready", { number }) : t("order.title");
}

function renderOpen() {
  const hour = new Date().getHours();
  write($("greeting"), t(hour < 5 || hour >= 18 ? "order.evening" : hour < 12 ? "order.morning" : "order.afternoon"));
  if (!board) return show($("line"), null);
  const { waiting: n, estimated_wait_ms: wait } = board;
  const length = n ? t("line.waiting", { n }) : t("line.empty");
  show($("line"), board.crew === "away" ? `${length} · ${t("crew.away")}` : wait && n ? `${length}, ${about(wait)}` : length);
}

function renderClosed() {
  const until = board.until && t("order.closed_until", { time: timeOfDay(board.until) });
  show($("closed-message"), inOurLanguage(board.message) ?? until);
}

function renderWaiting() {
  const { number, position, estimated_wait_ms: wait, crew, attempts } = state.order;
  write($("waiting-number"), number);
  write($("place"), String(position ?? ""));
  write($("place-label"), t(position === 1 ? "order.next" : "order.place"));
  $("place").classList.toggle("first", position === 1);
  show($("estimate"), crew === "away" ? t("crew.away") : wait !== undefined && about(wait));
  [...$("ahead").children].forEach((dot, index) => dot.toggleAttribute("data-on", index < position));
  $("again-soon").hidden = !(attempts > 0);
}

function renderMaking() {
  const { number, barista } = state.order;
  write($("making-number"), number);
  write($("maker"), barista ? t("order.making_by", { barista }) : t("order.making"));
}

function renderReady() {
  const { number, customer, waited_ms: waited, brew_ms: made } = state.order;
  write($("ready-number"), number);
  write($("collect"), customer ? t("order.collect_name", { name: customer }) : t("order.collect"));
  write($("took"), t("order.took", { waited: duration(waited), made: duration(made) }));
}

function renderRefused() {
  const error = /** @type {Problem} */ (state.problem);
  const { slug, limit, until, requestId } = error;
  const isKnown = hasText(`problem.${slug}`) && (slug !== "too-many-outstanding" || limit);
  write($("refused-title"), isKnown ? t(`problem.${slug}`, { n: limit }) : error.title);
  const text = isKnown ? (hasText(`problem.${slug}.text`) ? t(`problem.${slug}.text`, { time: timeOfDay(until) }) : t("problem.wait")) : error.detail;
  write($("refused-text"), text);
  $("request").hidden = !requestId;
  write($("request-id"), requestId);
}

function renderEnded() {
  const why = state.why === "lost" ? "lost" : "cancelled";
  write($("ended-title"), t(why === "lost" ? "order.lost" : "order.cancelled"));
  write($("ended-text"), why === "lost" ? t("order.lost_text", { time: timeOfDay(state.placed ?? 0) }) : t("order.cancelled_text"));
}

function renderLost() {
  const { view, lost } = state;
  /** @returns {string | null} */
  const text = () => {
    if (!lost) return null;
    if (view === "placing") return t("order.offline_placing");
    if (view === "making") return t("order.offline_making");
    return Date.now() > lost.until ? t("order.offline_long") : t("order.offline", { time: timeOfDay(lost.until) });
  };
  show($("offline"), text());
}

/** What changes with time. */
function tick() {
  if (state.view === "making") {
    const begun = (state.at ?? 0) - Date.parse(state.order.started_at);
    // The two clocks may differ: count from when this page heard of it if that is more plausible.
    const since = begun >= 0 && begun < 600_000 ? Date.parse(state.order.started_at) : state.at ?? 0;
    write($("making-for"), t("order.making_for", { time: clock(Date.now() - since) }));
  }
  if (state.view === "refused") {
    const left = (state.problem?.until ?? 0) - Date.now();
    $("retry").disabled = left > 0;
    write($("retry"), left > 0 ? t("order.try_again_in", { time: clock(Math.ceil(left / 1000) * 1000) }) : t("order.try_again"));
  }
  if (state.lost) renderLost();
}

/** Reports a change to those who do not look. @param {State} before */
function report(before) {
  const { view, order } = state;
  if (view === "waiting" && before.order?.position !== order.position) {
    announcer.say(t("order.say_place", { n: order.position }), order.position <= 3);
  }
  if (view === "making" && before.view !== "making") announcer.say(String($("maker").textContent), true);
  if (view !== "ready" || before.view === "ready") return;
  announcer.say(t("order.say_ready", { number: order.number }), true);
  if (stored.read("sound")) chime([660, 880]);
  // Before a touch or a key browsers refuse, and complain in the console.
  if (navigator.userActivation?.hasBeenActive !== false) navigator.vibrate?.([200, 100, 200]);
  notify(t("order.tab_ready", { number: order.number }), String($("collect").textContent));
}

/** @param {string} title @param {string} body */
function notify(title, body) {
  if (!stored.read("notify") || !("Notification" in window) || Notification.permission !== "granted") return;
  try {
    new Notification(title, { body, tag: title, icon: "/ui/ready.svg" });
  } catch {
    // Android shows notifications of service workers only.
  }
}

// --- What is pressed ---

$("name").value = stored.read("customer") ?? "";
$("press").disabled = false;
$("form").addEventListener("submit", (/** @type {Event} */ event) => (event.preventDefault(), press()));
$("retry").addEventListener("click", press);
$("cancel").addEventListener("click", () => $("cancelling").showModal());
$("cancelling").addEventListener("close", () => $("cancelling").returnValue === "yes" && cancel());
for (const button of document.querySelectorAll(".again")) {
  button.addEventListener("click", () => {
    stored.write("ready", null);
    emit("state", { view: "open" });
    readBoard();
  });
}
$("copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText($("request-id").textContent).then(() => write($("copy"), t("order.copied")), () => {});
});
$("sound").checked = stored.read("sound") ?? true;
$("sound").addEventListener("change", () => stored.write("sound", $("sound").checked));
stored.write("sound", $("sound").checked);
if ("Notification" in window && Notification.permission !== "denied") {
  $("notify").closest("label").hidden = false;
  $("notify").checked = Boolean(stored.read("notify")) && Notification.permission === "granted";
  $("notify").addEventListener("change", async () => {
    if ($("notify").checked) $("notify").checked = (await Notification.requestPermission()) === "granted";
    stored.write("notify", $("notify").checked);
  });
}
// Another tab has stored an order.
addEventListener("storage", () => wake());
document.addEventListener("visibilitychange", readBoard);
setInterval(readBoard, BOARD_EVERY_MS);
setInterval(tick, 250);
if (stored.read("order") && state.view === "open") state = { view: "placing" };
render();
readBoard();
