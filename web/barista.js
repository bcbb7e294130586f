/**
 * The baristas' console. The feed of the line is the truth about cups in hand; between its events the page counts itself.
 * Reports (finished, more time, given back) are stored and sent in order until the server has answered each. Remaining
 * times count by `performance.now()`: a tablet's clock may be wrong.
 */

import { Retry, follow, problemOf, share } from "./live.js";
import { $, Announcer, chime, clock, element, language, show, stored, t, timeOfDay, write } from "./page.js";

/** @typedef {import("./live.js").Problem} Problem */
/** @typedef {"finish" | "extend" | "release"} Kind */
/** @typedef {{kind: Kind, id: string, attempt: number, number: string, next: boolean}} Report */
/**
 * A cup in hand. `deadline`, `born`, `missing`: by performance.now(); `note`: why it must not be handed out.
 * @typedef {{id: string, number: string, customer?: string, details?: any, attempt: number, waitedMs: number, presence: string,
 *   deadline: number, born: number, missing: number, taken: boolean, note: string, busy: Kind | null, warned: boolean,
 *   card: HTMLElement}} Cup
 */

const HURRY_MS = 45_000;
const LAST_MS = 20_000;
const AUTO_EXTEND_MS = 15_000;
/** A press that was meant for what was there before. */
const DEAD_TIME_MS = 300;
/** For so long the feed and the answers to our requests may disagree about a cup. */
const SETTLE_MS = 1_500;
const IDLE_WAIT_S = 55;
const ANSWER_MAX_MS = 15_000;
const LIST_MAX = 8;

const query = new URLSearchParams(location.search);
const announcer = new Announcer();
const settings = { keys: true, sound: true, cups: 3, ...stored.read("settings"), ...(query.get("auto") === "1" && { auto: true }) };
/** @type {string} */
let barista = query.get("barista") ?? stored.read("barista") ?? "";
/** @type {any} */
let line = null;
let [isLive, lostAt, isPaused, isSignedOut, isSending, resumes] = [false, 0, false, false, false, false];
/** @type {AbortController | null} While a request waits for the next order. */
let pulling = null;
/** @type {Map<string, Cup>} */
const cups = new Map();
/** @type {Report[]} Not answered yet. */
let reports = [];
/** The longest lease seen: the full length of the bar. */
let leaseMs = 0;

const held = () => [...cups.values()].filter(({ note }) => !note).length;
const isFull = () => held() >= settings.cups;
const name = (/** @type {string} */ kind) => `${kind}.${barista}`;

// --- Requests ---

/**
 * Null if the connection failed or the server could not answer: try again.
 * @param {string} path
 * @param {Record<string, string | number>} parameters
 * @param {AbortSignal} [signal]
 * @returns {Promise<{status: number, body: any, problem: Problem | null} | null>}
 */
async function post(path, parameters, signal) {
  const text = Object.entries(parameters).map(([name, value]) => [name, String(value)]);
  const request = { method: "POST", signal: signal ?? AbortSignal.timeout(ANSWER_MAX_MS), headers: { Accept: "application/json" } };
  const answer = await fetch(`${path}?${new URLSearchParams(text)}`, request).catch(() => null);
  if (!answer) return null;
  if (isSignedOut !== (answer.status === 401)) {
    isSignedOut = !isSignedOut;
    render();
  }
  const problem = answer.ok ? null : await problemOf(answer);
  const body = answer.status === 200 ? await answer.json().catch(() => null) : null;
  const isFailed = answer.status >= 500 || answer.status === 429 || answer.status === 401 || (answer.status === 200 && !body);
  return isFailed ? null : { status: answer.status, body, problem };
}

async function take() {
  if (isPaused || isFull() || pulling) return;
  pulling = new AbortController();
  render();
  const { signal } = pulling;
  const retry = new Retry();
  // Only what arrives while nothing else is in hand makes a sound.
  for (let wait = 0; !signal.aborted && !isFull(); wait = IDLE_WAIT_S) {
    const taken = await post("/start/", { wait, barista }, wait ? signal : undefined);
    if (taken?.status === 200) {
      add(taken.body, wait > 0 && held() === 0);
      break;
    }
    show($("problem"), taken?.problem && `${taken.problem.title}. ${taken.problem.detail}`);
    if (taken?.problem) break;
    if (!taken) await retry.wait();
    else retry.reset();
  }
  if (pulling?.signal === signal) pulling = null;
  render();
}

function stopPulling() {
  pulling?.abort();
  pulling = null;
}

/** @param {Kind} kind @param {Cup | undefined} cup @param {boolean} [next] */
function report(kind, cup, next = false) {
  if (!cup || cup.note || cup.busy || performance.now() - cup.born < DEAD_TIME_MS) return;
  cup.busy = kind;
  reports.push({ kind, id: cup.id, attempt: cup.attempt, number: cup.number, next });
  render();
  send();
}

async function send() {
  stored.write(name("reports"), reports);
  if (isSending) return;
  isSending = true;
  const retry = new Retry();
  while (reports.length > 0) {
    const { kind, id, attempt, next } = reports[0];
    /** @type {Record<string, string | number>} Not longer: the answer, and with it the customer, would wait for the next order. */
    const more = kind === "finish" && next && !isPaused ? { next: 0, barista } : {};
    const answer = await post(`/${kind}/`, { order_id: id, attempt, ...more });
    if (answer) {
      retry.reset();
      settle(/** @type {Report} */ (reports.shift()), answer);
      stored.write(name("reports"), reports);
    } else await retry.wait();
    render();
  }
  isSending = false;
}

/** What the answer to a report means for its cup. @param {Report} report @param {{status: number, body: any, problem: Problem | null}} answer */
function settle({ kind, id, next }, { status, body, problem }) {
  const cup = cups.get(id);
  if (cup) cup.busy = null;
  if (problem && kind !== "release") {
    const time = timeOfDay(Date.now());
    const isGone = status === 404 || status === 409;
    if (cup) cup.note = isGone ? t("bar.lost", { time }) : t("bar.refused", { time, reason: problem.title });
  } else if (kind === "extend") {
    if (cup) renew(cup, body.lease_remaining_ms, body.customer_presence);
  } else {
    remove(id);
    if (body?.next) add(body.next, false);
    else if (kind === "finish" && next) take();
  }
}

// --- Cups ---

/** An order that was handed to this page. @param {any} started @param {boolean} wasIdle */
function add(started, wasIdle) {
  const id = started.order_id;
  stored.write(name("taken"), [id, ...(stored.read(name("taken")) ?? [])].slice(0, 50));
  const cup = known(started);
  cup.taken = true;
  renew(cup, started.lease_remaining_ms, started.customer_presence);
  announcer.say(t("bar.say_new", { number: cup.number }), true);
  if (wasIdle && settings.sound) chime([520, 660, 780]);
}

/** The cup of an order as the server describes it, with a new card if it is new. @param {any} order @returns {Cup} */
function known(order) {
  const there = cups.get(order.order_id);
  if (there && there.attempt === order.attempt) return there;
  if (there) remove(there.id);
  const id = order.order_id;
  const taken = (stored.read(name("taken")) ?? []).includes(id);
  const pending = reports.find((report) => report.id === id);
  /** @type {Cup} */
  const cup = {
    id, taken, number: order.number, customer: order.customer, details: order.details, attempt: order.attempt,
    waitedMs: order.waited_ms, presence: order.customer_presence, deadline: 0, born: performance.now(), missing: 0, note: "",
    busy: pending?.kind ?? null, warned: false, card: element("article", { class: "held" }),
  };
  cups.set(id, cup);
  build(cup);
  $("cups").append(cup.card);
  return cup;
}

/** @param {string} id */
function remove(id) {
  const card = cups.get(id)?.card;
  cups.delete(id);
  if (!card) return;
  const hadFocus = card.contains(document.activeElement);
  card.remove();
  if (hadFocus) ($("cups").querySelector("button") ?? $("take")).focus();
}

/** @param {Cup} cup @param {number} remainingMs @param {string} presence @param {number} [agoMs] */
function renew(cup, remainingMs, presence, agoMs = 0) {
  const deadline = performance.now() + remainingMs - agoMs;
  if (deadline > cup.deadline + 1_000) cup.warned = false;
  Object.assign(cup, { deadline, presence, missing: 0 });
  leaseMs = Math.max(leaseMs, remainingMs);
}

/** Compares the cups here with those that the server knows. */
function reconcile() {
  const ago = Date.now() - line.at;
  const theirs = new Set();
  for (const order of line.cups) {
    theirs.add(order.order_id);
    const before = cups.get(order.order_id);
    if (before && before.attempt > order.attempt) continue;
    const cup = known(order);
    // It may be older than the answer to a renewal that is under way.
    if (cup.busy !== "extend" && !cup.note) renew(cup, order.lease_remaining_ms, order.customer_presence, ago);
  }
  for (const cup of cups.values()) {
    if (theirs.has(cup.id) || cup.busy || cup.note) continue;
    const isFinished = line.recent.some((/** @type {any} */ { order_id: id }) => id === cup.id);
    if (isFinished) remove(cup.id);
    else cup.missing ||= performance.now();
  }
}

/** @param {Cup} cup */
function build(cup) {
  const button = (/** @type {string} */ key, /** @type {string} */ kind, /** @type {() => void} */ press) => {
    const made = element("button", { type: "button", class: kind }, t(key));
    made.addEventListener("click", press);
    return made;
  };
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  bar.setAttribute("viewBox", "0 0 100 4");
  bar.setAttribute("preserveAspectRatio", "none");
  bar.setAttribute("aria-hidden", "true");
  bar.append(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  bar.firstElementChild?.setAttribute("height", "4");
  const actions = element("div", { class: "actions" },
    button("bar.ready_next", "main", () => report("finish", cup, true)),
    button("bar.ready", "plain", () => report("finish", cup)),
    button("bar.extend", "plain", () => report("extend", cup)),
    button("bar.release", "plain", () => report("release", cup)));
  const dismiss = button("bar.dismiss", "plain dismiss", () => (remove(cup.id), render()));
  const heading = element("h2", { class: "figures" }, element("strong", {}, cup.number), element("kbd", { "aria-hidden": "true" }));
  const customer = element("p", { class: cup.customer ? "customer" : "customer quiet" }, cup.customer ?? t("bar.no_name"));
  const details = element("p", { class: "details", hidden: cup.details === undefined }, described(cup.details));
  cup.card.append(heading, customer, details, element("p", { class: "tags" }),
    element("p", { class: "quiet figures" }, t("bar.waited", { time: clock(cup.waitedMs) })),
    element("p", { class: "lease figures" }, bar, element("strong"), element("span")),
    element("p", { class: "note", role: "status" }), actions, dismiss);
}

/** What the customer sent with the order, as text. @param {any} details */
function described(details) {
  if (details === undefined) return "";
  if (typeof details !== "object" || details === null || Array.isArray(details)) return typeof details === "string" ? details : JSON.stringify(details);
  return Object.entries(details).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
}

/** @param {Cup} cup @param {number} index */
function draw(cup, index) {
  const { card, busy, note, presence } = cup;
  const left = cup.deadline - performance.now();
  const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (card.querySelector(selector));
  const urgency = note ? "lost" : left <= LAST_MS ? "last" : left <= HURRY_MS ? "hurry" : "calm";
  card.dataset.urgency = urgency;
  write(part("kbd"), settings.keys && index < 9 ? String(index + 1) : "");
  const isStrange = !cup.taken && !note && performance.now() - cup.born > SETTLE_MS;
  const tags = [cup.attempt > 1 && t("bar.attempt", { n: cup.attempt }), presence === "gone" && t("bar.customer_gone"),
    presence === "watching" && t("bar.customer_watching"), isStrange && t("bar.unexpected")];
  const wanted = tags.filter((tag) => tag !== false);
  if ([...part(".tags").children].map(({ textContent }) => textContent).join("\n") !== wanted.join("\n")) {
    part(".tags").replaceChildren(...wanted.map((tag) => element("span", {}, tag)));
  }
  part(".lease").hidden = Boolean(note);
  part("rect").setAttribute("width", String(Math.max(0, Math.min(100, (100 * left) / (leaseMs || 1)))));
  write(part(".lease strong"), clock(left) + (urgency === "calm" ? "" : " !"));
  write(part(".lease span"), left <= 0 ? t("bar.lease_over") : urgency === "last" ? t("bar.hurry", { time: clock(left) }) : "");
  write(part(".note"), note || (busy && (isLive ? t("bar.sending") : t("bar.queued"))) || "");
  part(".actions").hidden = Boolean(note);
  part(".dismiss").hidden = !note;
  for (const button of card.querySelectorAll(".actions button")) button.toggleAttribute("disabled", busy !== null);
}

/** What changes with time. */
function tick() {
  const now = performance.now();
  for (const cup of cups.values()) {
    const left = cup.deadline - now;
    // The line has it again, unless the answer that takes it from our hands is still under way.
    if (cup.missing && !cup.busy && !cup.note && now - cup.missing > SETTLE_MS) cup.note = t("bar.lost", { time: timeOfDay(Date.now()) });
    if (cup.note || cup.busy) continue;
    if (settings.auto && left <= AUTO_EXTEND_MS && left > 0 && document.visibilityState === "visible") report("extend", cup);
    else if (left <= LAST_MS && left > 0 && !cup.warned) {
      cup.warned = true;
      announcer.say(t("bar.say_hurry", { number: cup.number, time: clock(left) }), true);
      if (settings.sound) chime([440]);
    }
  }
  [...cups.values()].forEach(draw);
  renderLine();
}

// --- The page around the cups ---

function render() {
  [...cups.values()].forEach(draw);
  const full = isFull();
  $("idle").hidden = cups.size > 0;
  $("idle").dataset.waits = String(pulling !== null);
  const key = settings.keys ? "n" : `“${t("bar.take")}”`;
  write($("idle-title"), isPaused ? t("bar.paused") : pulling ? t("bar.idle") : t("bar.none"));
  const idle = line?.idle_baristas ?? 0;
  write($("idle-text"), isPaused ? "" : pulling ? (idle > 1 ? t("bar.idle_others", { n: idle }) : "") : t("bar.none_hint", { key }));
  write($("take"), pulling ? t("bar.stop_waiting") : t("bar.take"));
  $("take").className = pulling ? "plain take" : "main take";
  $("take").disabled = !barista || (!pulling && (full || isPaused || isSignedOut));
  show($("pull-state"), full ? t("bar.hands_full", { n: settings.cups }) : pulling && cups.size > 0 && t("bar.idle"));
  write($("change"), barista || "…");
  $("change").setAttribute("aria-label", `${barista} – ${t("bar.change")}`);
  write($("pause"), isPaused ? t("bar.resume") : t("bar.pause"));
  $("paused").hidden = !isPaused;
  $("signed-out").hidden = !isSignedOut;
  document.title = `${cups.size ? `${t("bar.tab", { n: cups.size })} · ` : ""}${t("bar.title")}`;
  renderLine();
}

function renderLine() {
  write($("connection"), isLive ? t("connection.live") : lostAt ? t("connection.lost") : t("connection.connecting"));
  $("connection").dataset.live = String(isLive);
  const queued = reports.length > 0 ? ` ${t("bar.offline_queue", { n: reports.length })}` : "";
  show($("offline"), !isLive && lostAt > 0 && !isSignedOut && t("bar.offline", { time: timeOfDay(lostAt) }) + queued);
  if (!line) return;
  const ago = Date.now() - line.at;
  const first = line.oldest_waiting_ms !== undefined && line.waiting > 0 && t("bar.first", { time: clock(line.oldest_waiting_ms + ago) });
  write($("summary"), [t("bar.waiting", { n: line.waiting }), first, t("bar.at_work", { n: line.brewing })].filter(Boolean).join(" · "));
  const message = line.message?.[language] ?? line.message?.en ?? "";
  show($("closed"), line.open === false && `${t("bar.closed")} ${message}`);
  const rows = (/** @type {HTMLElement} */ list, /** @type {[string, string, string][]} */ wanted, /** @type {string} */ none) => {
    const texts = wanted.length > 0 ? wanted : [["", none, ""]];
    while (list.children.length > texts.length) list.lastElementChild?.remove();
    texts.forEach((row, index) => {
      const item = list.children[index] ?? list.appendChild(element("li", {}, element("strong"), element("span"), element("small")));
      row.forEach((text, part) => write(item.children[part], text));
    });
  };
  const next = line.next.slice(0, LIST_MAX).map((/** @type {any} */ { number, customer, waited_ms: waited }) => [number, customer ?? "", clock(waited + ago)]);
  rows($("next"), next, t("bar.line_empty"));
  const recent = line.recent.slice(0, LIST_MAX).map((/** @type {any} */ { number, customer, delivered, ready_ms: since }) =>
    [number, customer ?? "", t(delivered ? "bar.delivered" : "bar.not_there", { time: timeOfDay(line.at - since) })]);
  rows($("recent"), recent, t("bar.recent_none"));
}

/** @param {string} event @param {any} data */
function receive(event, data) {
  if (event === "line") {
    [line, isLive, lostAt, isSignedOut] = [data, true, 0, false];
    $("draining").hidden = true;
    show($("problem"), null);
    reconcile();
  } else if (event === "lost") [isLive, lostAt] = [false, lostAt || Date.now()];
  else if (event === "stopping") $("draining").hidden = false;
  else if (event === "refused" && data.status === 401) isSignedOut = true;
  else if (event === "refused" && data.status < 500 && data.status !== 429) show($("problem"), `${data.title}. ${data.detail}`);
  else if (event === "sign") return;
  render();
}

function begin() {
  reports = stored.read(name("reports")) ?? [];
  share(`line.${barista}`, (emit) => follow(`/line?${new URLSearchParams({ barista })}`, emit), receive);
  if (reports.length > 0) send();
  render();
}

// --- What is pressed ---

function pause() {
  isPaused = !isPaused;
  if (isPaused) resumes = pulling !== null;
  if (isPaused) stopPulling();
  else if (resumes) take();
  render();
}

let prefix = "";

/** @param {KeyboardEvent} event */
function pressed(event) {
  const isTyping = event.target instanceof HTMLInputElement || document.querySelector("dialog[open]");
  if (!settings.keys || isTyping || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  const before = prefix;
  prefix = event.key === "e" || event.key === "g" ? event.key : "";
  if (digit) {
    const cup = [...cups.values()][Number(digit) - 1];
    if (before === "e") report("extend", cup);
    else if (before === "g") report("release", cup);
    else report("finish", cup, !event.shiftKey);
  } else if (event.key === "n") take();
  else if (event.key === "p") pause();
  else if (event.key === "?") $("help").showModal();
}

function askName() {
  $("who-name").value = barista;
  $("who").showModal();
}

$("take").addEventListener("click", () => {
  if (pulling) stopPulling();
  else take();
  render();
});
$("pause").addEventListener("click", pause);
$("change").addEventListener("click", askName);
$("help-open").addEventListener("click", () => $("help").showModal());
$("who-form").addEventListener("submit", () => {
  const entered = $("who-name").value.trim();
  const isFirst = !barista;
  if (!entered || entered === barista) return;
  stored.write("barista", entered);
  barista = entered;
  if (isFirst) return begin();
  query.delete("barista");
  location.assign(`${location.pathname}?${query}`);
});
$("who").addEventListener("close", () => barista || setTimeout(askName));
for (const [id, setting] of [["set-keys", "keys"], ["set-sound", "sound"], ["set-auto", "auto"]]) {
  $(id).checked = Boolean(settings[setting]);
  $(id).addEventListener("change", () => change(setting, $(id).checked));
}
$("set-cups").value = settings.cups;
$("set-cups").addEventListener("change", () => change("cups", Math.min(9, Math.max(1, Number($("set-cups").value) || 3))));

/** @param {string} setting @param {unknown} value */
function change(setting, value) {
  settings[setting] = value;
  stored.write("settings", settings);
  render();
}

$("log-in").href = `/login?${new URLSearchParams({ next: location.pathname + location.search })}`;
addEventListener("keydown", pressed);
setInterval(tick, 250);
if (barista) begin();
else askName();
render();
