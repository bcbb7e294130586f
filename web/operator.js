/** The operator's page: the state of every desk from one stream, a search, and the places of things below `#/`. */

import { follow, problem, problemOf, share } from "./live.js";
import { $, Announcer, clock, duration, element, language, stored, t, timeOfDay, write } from "./page.js";

/** @typedef {string | number} Scalar */
/**
 * A cell: its text, and where it leads; `mark` says in words and by colour how bad it is; `act` is what its button does.
 * @typedef {{text: Scalar, href?: string, mark?: "late" | "bad" | "well" | "", number?: boolean, title?: string,
 *   act?: () => void, label?: string, row?: boolean}} Cell
 */

const announcer = new Announcer();
/** @type {any} The latest state. */
let latest = null;
let frozen = false;

const locale = navigator.languages.find((tag) => tag.startsWith(language)) ?? language;
const digits = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
/** @param {number | undefined} value */
const count = (value) => (value === undefined ? "–" : digits.format(value));
/** @param {number} ms */
const ago = (ms) => (ms < 3_600_000 ? clock(ms) : span(ms));
/** By the server's clock alone. @param {string} at */
const since = (at) => Math.max(0, Date.parse(latest.now) - Date.parse(at));
const days = new Intl.NumberFormat(language, { style: "unit", unit: "day", unitDisplay: "long" });
/** From two days on in days. @param {number} ms */
const span = (ms) => (ms < 172_800_000 ? duration(ms) : days.format(Math.floor(ms / 86_400_000)));
const seconds = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// --- Tables ---------------------------------------------------------------------------------------------------------

/** What the button of a cell does now. @type {WeakMap<Element, () => void>} */
const actions = new WeakMap();

/** @param {Cell} cell @returns {Element} */
function made({ href, act, number, row }) {
  const inner = act ? element("button", { type: "button", class: "plain small" }) : href ? element("a") : element("span");
  if (act) inner.addEventListener("click", () => actions.get(inner)?.());
  return element(row ? "th" : "td", { class: number ? "number" : undefined, scope: row ? "row" : undefined }, inner);
}

/** @param {Element} at @param {Cell} cell */
function fill(at, cell) {
  const inner = /** @type {Element} */ (at.firstElementChild);
  write(inner, typeof cell.text === "number" ? count(cell.text) : cell.text);
  const set = (/** @type {Element} */ of, /** @type {string} */ name, /** @type {string | undefined} */ value) => {
    if (!value) of.removeAttribute(name);
    else if (of.getAttribute(name) !== value) of.setAttribute(name, value);
  };
  set(at, "data-mark", cell.mark);
  set(inner, "title", cell.title);
  set(inner, "aria-label", cell.label);
  if (cell.href) set(inner, "href", cell.href);
  if (cell.act) actions.set(inner, cell.act);
}

/**
 * The rows of a table, by their keys: a row that stays is changed in place, so that focus and selection stay, too.
 * @param {string} name
 * @param {{key: string, cells: Cell[]}[]} rows
 * @param {number} [more] that are not listed
 */
function table(name, rows, more = 0) {
  const body = $(`${name}-rows`);
  /** @type {Map<string, HTMLTableRowElement>} */
  const known = new Map([...body.rows].map((row) => [row.dataset.key ?? "", row]));
  rows.forEach(({ key, cells }, at) => {
    const kinds = cells.map((cell) => (cell.act ? "b" : cell.href ? "a" : "s")).join("");
    let row = known.get(key);
    known.delete(key);
    if (!row || row.dataset.kinds !== kinds) {
      row?.remove();
      row = /** @type {HTMLTableRowElement} */ (element("tr", { "data-key": key, "data-kinds": kinds }, ...cells.map(made)));
    }
    cells.forEach((cell, place) => fill(/** @type {any} */ (row).cells[place], cell));
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
  });
  for (const row of known.values()) row.remove();
  $(`${name}-box`).hidden = rows.length === 0;
  const none = $(`${name}-none`);
  none.dataset.text ??= none.textContent;
  write(none, rows.length ? t("op.more", { n: more }) : none.dataset.text);
  none.hidden = rows.length > 0 && more <= 0;
}

/** @param {string} id @param {string} text @param {string} [mark] */
function sum(id, text, mark = "") {
  write($(id), text);
  $(id).dataset.mark = mark;
}

// --- The overview ---------------------------------------------------------------------------------------------------

/** A figure of the strip. @param {any} of @param {string} text @param {"" | "late" | "bad"} [mark] */
function figure(of, text, mark = "") {
  write(of.firstElementChild, mark ? `${text} !` : text);
  of.dataset.mark = mark;
}

/** How late a wait is. @param {number | undefined} ms @returns {"" | "late" | "bad"} */
function lateness(ms) {
  const { late_ms, very_late_ms } = latest.line ?? {};
  return ms === undefined || late_ms === undefined || ms < late_ms ? "" : ms < very_late_ms ? "late" : "bad";
}

/** The last six slots that are over, as events per minute. @param {number[]} slots */
const perMinute = (slots) => slots.slice(-7, -1).reduce((sum, one) => sum + one, 0);

/** @param {any} svg @param {number[]} slots */
function chart(svg, slots) {
  const over = slots.slice(0, -1);
  const most = Math.max(1, ...over);
  const step = 240 / (over.length - 1);
  const points = over.map((value, at) => `${(at * step).toFixed(1)},${(38 - (value / most) * 34).toFixed(1)}`);
  const shape = points.join(" ");
  if (svg.dataset.shape === shape) return;
  svg.dataset.shape = shape;
  const part = (/** @type {string} */ name, /** @type {string} */ points) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    made.setAttribute("points", points);
    return made;
  };
  svg.replaceChildren(part("polygon", `0,40 ${shape} 240,40`), part("polyline", shape));
}

/** @param {any} spread */
const percentiles = (spread) =>
  spread ? t("op.percentiles", { p50: clock(spread.p50_ms), p90: clock(spread.p90_ms), p99: clock(spread.p99_ms) }) : "–";

function showLine() {
  const { line = {}, rates } = latest;
  figure($("k-waiting"), count(line.waiting));
  figure($("k-oldest"), line.oldest_waiting_ms === undefined ? "–" : clock(line.oldest_waiting_ms), lateness(line.oldest_waiting_ms));
  figure($("k-brewing"), count(line.brewing));
  figure($("k-idle"), count(line.idle_baristas));
  figure($("k-rate"), count(perMinute(rates.finished)));
  figure($("k-wait"), rates.wait ? clock(rates.wait.p90_ms) : "–", lateness(rates.wait?.p90_ms));
  const figures = { waiting: line.waiting, brewing: line.brewing };
  sum("line-sum", latest.line ? t("op.line_sum", figures) : t("op.unanswered"), latest.line ? lateness(line.oldest_waiting_ms) : "bad");
  write($("chart-placed-now"), count(perMinute(rates.placed)));
  write($("chart-finished-now"), count(perMinute(rates.finished)));
  chart($("chart-placed"), rates.placed);
  chart($("chart-finished"), rates.finished);
  write($("wait-times"), percentiles(rates.wait));
  write($("brew-times"), percentiles(rates.brew));
  const cups = (line.cups ?? []).map((/** @type {any} */ cup) => {
    const left = cup.lease_remaining_ms;
    return {
      key: cup.order_id,
      cells: [
        { text: cup.barista ?? t("op.no_name"), row: true },
        { text: cup.number ?? cup.order_id.slice(-4), href: `#/orders/${cup.order_id}` },
        { text: clock(cup.brewing_ms), number: true },
        { text: left < 20_000 ? `${clock(left)} !` : clock(left), number: true, mark: left < 20_000 ? "late" : "" },
        { text: cup.attempt, number: true, mark: cup.attempt > 1 ? "late" : "" },
      ],
    };
  });
  table("cups", cups, (line.brewing ?? 0) - cups.length);
  const next = (line.next ?? []).slice(0, 6).map((/** @type {any} */ one) => `${one.number} ${clock(one.waited_ms)}`);
  write($("first"), next.length ? t("op.first", { list: next.join(" · ") }) : "");
  showDoor(line);
}

/** @param {any} line */
function showDoor({ open, message }) {
  $("door-actions").hidden = open === undefined;
  write($("door"), open === false ? t("op.open_line") : t("op.close_line"));
  $("closed").hidden = open !== false;
  write($("closed"), open === false ? t("op.closed", { message: message?.[language] ?? message?.en ?? "" }) : "");
}

/** @type {Record<string, string>} */
const modes = { enforce: t("op.mode.enforce"), observe: t("op.mode.observe"), off: t("op.mode.off") };

function showFlood() {
  const { flood } = latest;
  figure($("k-blocked"), count(flood.blocked_count), flood.blocked_count ? "late" : "");
  sum("flood-sum", t("op.flood_sum", { mode: modes[flood.mode], addresses: flood.addresses, refused: flood.refused }));
  const rows = flood.blocked.map((/** @type {any} */ one) => ({
    key: one.address,
    cells: [
      { text: one.address, href: `#/flood/${encodeURIComponent(one.address)}`, row: true },
      { text: one.reason },
      { text: clock(one.remaining_ms), number: true, title: timeOfDay(one.until) },
      { text: one.refused, number: true },
      { text: t("op.let_in"), number: true, label: `${t("op.let_in")}: ${one.address}`, act: () => letIn(one.address) },
    ],
  }));
  table("blocked", rows, flood.blocked_count - rows.length);
}

function showProblems() {
  const { problems } = latest;
  const errors = problems.filter((/** @type {any} */ one) => one.status >= 500).length;
  figure($("k-problems"), count(errors), errors ? "bad" : "");
  sum("problems-sum", problems.length ? `${problems[0].status} · ${clock(since(problems[0].at))}` : "");
  const rows = problems.map((/** @type {any} */ one) => ({
    key: String(one.number),
    cells: [
      { text: seconds.format(new Date(one.at)), title: one.at },
      { text: String(one.status), mark: one.status >= 500 ? "bad" : "" },
      { text: `${one.method} ${one.route}`, title: `${one.listener}, ${one.client}` },
      { text: one.type.replace(/^.*:/, ""), title: one.detail },
      { text: one.request_id.slice(0, 13), href: `#/requests/${encodeURIComponent(one.request_id)}`, title: one.request_id },
    ],
  }));
  table("recent", rows);
}

function showEngines() {
  const { engines } = latest;
  const down = engines.filter((/** @type {any} */ one) => !one.well).length;
  figure($("k-engines"), count(down), down ? "bad" : "");
  sum("engines-sum", down ? t("op.some_down", { n: down }) : t("op.all_well"), down ? "bad" : "");
  const rows = engines.map((/** @type {any} */ one) => {
    const [time, error] = [span(since(one.since)), one.last_error];
    const past = error ? ` · ${t("op.last_error", { time: span(since(error.at)) })}` : "";
    const state = one.well ? t("op.well_for", { time }) + past : t("op.down_for", { time, detail: error?.detail ?? "" });
    return {
      key: one.name,
      cells: [
        { text: one.name, row: true },
        { text: state, mark: one.well ? "well" : "bad", title: error?.detail },
        { text: count(one.queue), number: true },
        { text: one.commit_p99_ms === undefined ? "–" : `${count(one.commit_p99_ms)} ms`, number: true },
      ],
    };
  });
  table("engine", rows);
}

function showDay() {
  const { plan } = latest;
  const left = plan?.unassigned ?? 0;
  figure($("k-unassigned"), plan ? count(plan.unassigned) : "–", left ? "late" : "");
  const parts = plan && [t("op.day_sum", { date: plan.date, drivers: plan.drivers, held: plan.held })];
  if (left) parts.push(t("op.day_left", { n: left }));
  sum("day-sum", parts ? parts.join(" · ") : t("op.unanswered"), plan ? "" : "late");
  const most = plan?.max_per_driver;
  const rows = (plan?.listed ?? []).map((/** @type {any} */ one) => ({
    key: one.driver_id,
    cells: [
      { text: one.driver_id, href: `#/drivers/${encodeURIComponent(one.driver_id)}`, row: true },
      { text: most ? `${count(one.held)}/${count(most)}` : one.held, number: true },
      { text: one.accepted, number: true },
      { text: one.in_progress, number: true },
      { text: one.delivered, number: true },
      { text: one.failed_to_deliver, number: true, mark: one.failed_to_deliver ? "bad" : "" },
    ],
  }));
  table("driver", rows, (plan?.drivers ?? 0) - rows.length);
}

function showDrones() {
  const { deliveries } = latest;
  const stale = deliveries?.stale ?? 0;
  figure($("k-stale"), deliveries ? count(stale) : "–", stale ? "late" : "");
  const text = deliveries && t("op.drones_sum", { ongoing: deliveries.ongoing, total: deliveries.total });
  sum("drones-sum", text ?? t("op.unanswered"), deliveries ? "" : "late");
  const rows = (deliveries?.listed ?? []).map((/** @type {any} */ one) => ({
    key: one.delivery_id,
    cells: [
      { text: one.delivery_id, href: `#/deliveries/${one.delivery_id}`, row: true },
      { text: one.stale ? `${one.state} · ${t("op.stale")}` : one.state, mark: one.stale ? "late" : "" },
      { text: ago(one.silent_ms), number: true },
      { text: one.events, number: true },
    ],
  }));
  table("drone", rows, (deliveries?.ongoing ?? 0) - rows.length);
}

function showCouriers() {
  const { couriers } = latest;
  const zones = couriers ?? [];
  const parked = zones.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.parked, 0);
  const available = zones.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.available, 0);
  figure($("k-parked"), couriers ? count(parked) : "–", parked ? "late" : "");
  sum("couriers-sum", couriers ? `${count(available)} ${t("op.available")}` : t("op.unanswered"), couriers ? "" : "late");
  const known = zones.filter((/** @type {any} */ one) => one.available + one.unavailable + one.parked > 0);
  const rows = known.map((/** @type {any} */ one) => ({
    key: one.zone,
    cells: [
      { text: one.zone, row: true },
      { text: one.available, number: true, mark: one.available ? "" : "late" },
      { text: one.unavailable, number: true },
      { text: one.given, number: true },
      { text: one.min === undefined ? "–" : `${count(one.min)}–${count(one.max)}`, number: true },
      {
        text: one.parked ? `${count(one.parked)} (${ago(one.oldest_parked_ms)}) !` : 0,
        number: true,
        mark: one.parked ? "late" : "",
      },
    ],
  }));
  table("zone", rows);
}

function showPackages() {
  const { packages } = latest;
  const { delivered, dropped, rejected } = packages ?? {};
  sum("packages-sum", packages ? t("op.packages_sum", { delivered, dropped, rejected }) : t("op.unanswered"), packages ? "" : "late");
  const rows = (packages?.by_type ?? []).map((/** @type {any} */ one) => ({
    key: one.type,
    cells: [
      { text: one.type, row: true },
      { text: one.delivered, number: true },
      { text: one.dropped, number: true },
    ],
  }));
  table("type", rows);
}

const shown = [showLine, showFlood, showProblems, showEngines, showDay, showDrones, showCouriers, showPackages];

function render() {
  if (!latest || frozen || document.hidden) return;
  for (const show of shown) show();
  const trouble = latest.engines.some((/** @type {any} */ one) => !one.well) || lateness(latest.line?.oldest_waiting_ms);
  document.title = `${trouble ? "! " : ""}${count(latest.line?.waiting)} · Odyssey`;
}

// --- Actions --------------------------------------------------------------------------------------------------------

/**
 * Asks before something is done. Returns the text that was entered, or null.
 * @param {string} title @param {string} text @param {string} yes @param {boolean} [asksMessage]
 * @returns {Promise<string | null>}
 */
function confirmed(title, text, yes, asksMessage = false) {
  const dialog = $("confirm");
  write($("confirm-title"), title);
  write($("confirm-text"), text);
  write($("confirm-yes"), yes);
  $("confirm-fields").hidden = !asksMessage;
  $("confirm-message").value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => resolve(dialog.returnValue === "yes" ? $("confirm-message").value.trim() : null);
    dialog.addEventListener("close", closed, { once: true });
  });
}

/** @param {string} path @param {RequestInit} request */
async function act(path, request) {
  const failed = await fetch(path, request)
    .then((response) => (response.ok ? null : problemOf(response)))
    .catch(() => problem({}));
  $("failed").hidden = !failed;
  write($("failed"), failed ? t("op.did_fail", { detail: failed.detail || failed.title || failed.slug }) : "");
}

/** Its row goes when the server says so. @param {string} address */
async function letIn(address) {
  const text = t("op.let_in_text", { address });
  const yes = await confirmed(t("op.let_in_title", { address }), text, t("op.let_in"));
  if (yes !== null) await act(`/flood/${encodeURIComponent(address)}`, { method: "DELETE" });
}

async function turnDoor() {
  const opens = latest?.line?.open === false;
  const message = opens
    ? await confirmed(t("op.open_title"), t("op.open_text"), t("op.open_line"))
    : await confirmed(t("op.close_title"), t("op.close_text"), t("op.close_line"), true);
  if (message === null) return;
  const door = { open: opens, ...(message && { message: { [language]: message } }) };
  await act("/line/door", { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(door) });
}

function freeze() {
  frozen = !frozen;
  $("freeze").setAttribute("aria-pressed", String(frozen));
  write($("freeze"), frozen ? t("op.unfreeze") : t("op.freeze"));
  $("connection").dataset.frozen = String(frozen);
  if (frozen) write($("connection"), t("op.frozen", { time: seconds.format(new Date()) }));
  else connected(true);
  render();
}

/** @param {MouseEvent} event */
async function copyCurl({ target }) {
  const button = /** @type {Element} */ (target).closest("[data-path]");
  if (!button) return;
  const path = /** @type {HTMLElement} */ (button).dataset.path;
  const text = `curl -H 'Accept: application/json' '${location.origin}${path}'`;
  await navigator.clipboard?.writeText(text).catch(() => {});
  announcer.say(t("op.copied", { text }), true);
  write(button, t("op.copied", { text: "curl …" }));
  setTimeout(() => write(button, t("op.copy_curl")), 2000);
}

// --- Search ---------------------------------------------------------------------------------------------------------

/** @type {Record<string, string>} */
const kinds = {
  order: t("op.kind.order"),
  delivery: t("op.kind.delivery"),
  package: t("op.kind.package"),
  recipient: t("op.kind.recipient"),
  driver: t("op.kind.driver"),
  assignment: t("op.kind.assignment"),
  courier: t("op.kind.courier"),
  "courier-order": t("op.kind.courier_order"),
  blocked: t("op.kind.blocked"),
  request: t("op.kind.request"),
};

/** @type {ReturnType<typeof setTimeout> | undefined} */
let typed;
let chosen = -1;

/** @param {boolean} open */
function expand(open) {
  $("found").hidden = !open;
  $("search").setAttribute("aria-expanded", String(open));
  if (!open) choose(-1);
}

/** @param {number} at */
function choose(at) {
  const options = [...$("found").querySelectorAll("[role=option]")];
  chosen = options.length ? (at + options.length) % options.length : -1;
  if (at < 0 && chosen !== options.length - 1) chosen = -1;
  if (at === -1) chosen = -1;
  options.forEach((option, place) => option.setAttribute("aria-selected", String(place === chosen)));
  const now = options[chosen];
  if (now) {
    $("search").setAttribute("aria-activedescendant", now.id);
    now.scrollIntoView({ block: "nearest" });
  } else $("search").removeAttribute("aria-activedescendant");
}

async function find() {
  const text = $("search").value.trim();
  if (!text) return expand(false);
  const answer = await fetch(`/search?q=${encodeURIComponent(text)}`).catch(() => null);
  if (!answer?.ok || $("search").value.trim() !== text) return;
  /** @type {{found: {kind: string, id: string, title: string, href: string}[]}} */
  const { found } = await answer.json();
  const options = found.map((one, at) => {
    const what = element("span", { class: "quiet" }, `${kinds[one.kind] ?? one.kind} · ${one.title}`);
    const option = { role: "option", id: `found-${at}`, "aria-selected": "false", "data-href": one.href };
    return element("li", option, element("strong", {}, one.id), what);
  });
  const none = element("li", { class: "quiet", role: "option", "aria-disabled": "true", id: "found-none" }, t("op.found_none"));
  $("found").replaceChildren(...(options.length ? options : [none]));
  announcer.say(found.length ? t("op.found_n", { n: found.length }) : t("op.found_none"), true);
  expand(true);
  choose(found.length ? 0 : -1);
}

/** Opens the place of a result. @param {Element | null} option */
function go(option) {
  const href = /** @type {HTMLElement | null} */ (option)?.dataset.href;
  if (!href) return;
  expand(false);
  $("search").value = "";
  location.assign(href);
}

/** @param {KeyboardEvent} event */
function searchKey(event) {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const options = $("found").querySelectorAll("[data-href]");
  if (move && options.length) {
    choose((chosen + move + options.length) % options.length);
    event.preventDefault();
  } else if (event.key === "Escape") {
    expand(false);
    $("search").value = "";
  } else if (event.key === "Enter" && options.length) go(options[Math.max(0, chosen)]);
}

// --- The place of one thing -----------------------------------------------------------------------------------------

/** What is asked for a thing, by the first part of its place. @type {Record<string, {kind: string, paths: (id: string) => string[]}>} */
const places = {
  orders: { kind: kinds.order, paths: (id) => [`/orders/${id}`] },
  deliveries: { kind: kinds.delivery, paths: (id) => [`/deliveries/${id}`, `/deliveries/${id}/events`] },
  packages: { kind: kinds.package, paths: (id) => [`/packages/${id}`, `/assignments?package_id=${id}`] },
  recipients: { kind: kinds.recipient, paths: (id) => [`/preferences/${id}`] },
  couriers: { kind: kinds.courier, paths: (id) => [`/orders?courierId=${id}`] },
  "courier-orders": { kind: kinds["courier-order"], paths: (id) => [`/courier?orderId=${id}`] },
  drivers: { kind: kinds.driver, paths: (id) => [`/assignments?driver_id=${id}`] },
  flood: { kind: kinds.blocked, paths: () => ["/flood"] },
  requests: { kind: kinds.request, paths: () => ["/problems"] },
};

/** Where the value of a member leads. @type {Record<string, string>} */
const related = {
  order_id: "orders",
  delivery_id: "deliveries",
  driver_id: "drivers",
  package_id: "packages",
  courier_id: "couriers",
  recipient_id: "recipients",
  request_id: "requests",
};

/** @param {any} value */
const plain = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** @param {string} name @param {any} value */
function valueOf(name, value) {
  const place = related[name];
  return place ? element("a", { href: `#/${place}/${encodeURIComponent(value)}` }, plain(value)) : plain(value);
}

/** The members of an object that have one value. @param {any} body */
const facts = (body) =>
  Object.entries(body)
    .filter(([, value]) => !Array.isArray(value))
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, valueOf(name, value))));

/** A list of objects, or of ids. @param {string} name @param {any[]} list */
function listOf(name, list) {
  const rows = list.slice(0, 200).map((one) => (typeof one === "object" ? one : { [name]: one }));
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].slice(0, 8);
  const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
  const body = rows.map((row) =>
    element("tr", {}, ...columns.map((column) => element("td", {}, row[column] === undefined ? "" : valueOf(column, row[column])))),
  );
  const box = { class: "scrolls", tabindex: "0", role: "group", "aria-label": name };
  return element("div", box, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

/** The part of a long list that is about one thing. @param {string} place @param {string} id @param {any} body */
function part(place, id, body) {
  if (place === "requests") return body.problems?.findLast((/** @type {any} */ one) => one.request_id === id);
  if (place === "flood") return body.cut_off?.find((/** @type {any} */ one) => one.address === id);
  return Array.isArray(body) ? { orders: body } : typeof body === "string" ? { courier_id: body } : body;
}

async function showThing() {
  const [, place, encoded] = /^#\/([\w-]+)\/(.+)$/.exec(location.hash) ?? [];
  const known = places[place];
  $("overview").hidden = Boolean(known);
  $("thing").hidden = !known;
  if (!known) return render();
  const id = decodeURIComponent(encoded);
  write($("thing-title"), `${known.kind} ${id}`);
  document.title = `${id} · Odyssey`;
  const answers = await Promise.all(known.paths(encodeURIComponent(id)).map((path) => fetch(path).catch(() => null)));
  const bodies = await Promise.all(answers.map((answer) => answer?.json().catch(() => null)));
  const [first, body] = [answers[0], bodies[0]];
  const found = first?.ok && part(place, id, body);
  $("thing-none").hidden = Boolean(found);
  write($("thing-none"), found ? "" : t("op.not_found", { detail: body?.detail ?? id }));
  $("thing-facts").replaceChildren(...(found ? facts(found) : []));
  const lists = (found ? [found, ...bodies.slice(1)] : []).flatMap((one) => Object.entries(one ?? {}));
  const tables = lists.filter(([, value]) => Array.isArray(value) && value.length > 0).map(([name, value]) => listOf(name, value));
  $("thing-tables").replaceChildren(...tables);
  write($("thing-raw"), JSON.stringify(found ? [found, ...bodies.slice(1)].filter(Boolean) : body, null, 2));
  $("thing-title").focus();
}

// --- Start ----------------------------------------------------------------------------------------------------------

/** @param {boolean} live */
function connected(live) {
  $("connection").dataset.live = String(live);
  if (!frozen) write($("connection"), live ? t("connection.live") : t("connection.lost"));
}

/** @param {string} event @param {any} data */
function receive(event, data) {
  if (event === "overview") latest = data;
  if (event === "refused") $("signed-out").hidden = data.status !== 401 && data.status !== 403;
  if (event === "open") $("signed-out").hidden = true;
  if (event === "open" || event === "lost") connected(event === "open");
  if (event === "overview") render();
}

async function showBuild() {
  const build = await fetch("/build").then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
  if (!build) return;
  const started = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(new Date(build.started_at));
  write($("build"), t("op.build", { version: build.version, commit: build.commit, time: started }));
  for (const { name, url } of build.links ?? []) {
    $("links").append(element("li", {}, element("a", { href: url, rel: "noreferrer" }, name)));
  }
}

const folded = new Set(stored.read("folded") ?? []);
for (const panel of document.querySelectorAll("details.panel")) {
  if (folded.has(panel.id)) panel.removeAttribute("open");
  panel.addEventListener("toggle", () => {
    if (/** @type {HTMLDetailsElement} */ (panel).open) folded.delete(panel.id);
    else folded.add(panel.id);
    stored.write("folded", [...folded]);
  });
}
for (const link of document.querySelectorAll(".strip a")) {
  link.addEventListener("click", () => $(link.getAttribute("href")?.slice(1) ?? "").setAttribute("open", ""));
}
$("freeze").addEventListener("click", freeze);
$("door").addEventListener("click", turnDoor);
$("search").addEventListener("keydown", searchKey);
$("search").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(find, 200);
});
$("found").addEventListener("click", (/** @type {MouseEvent} */ { target }) => go(/** @type {Element} */ (target).closest("[data-href]")));
document.addEventListener("click", copyCurl);
document.addEventListener("click", ({ target }) => /** @type {Element} */ (target).closest(".search") || expand(false));
document.addEventListener("keydown", (event) => {
  const types = /** @type {Element} */ (event.target).closest("input, textarea, dialog");
  if (event.key !== "/" || types || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  $("search").focus();
});
document.addEventListener("visibilitychange", render);
addEventListener("hashchange", showThing);
share("overview", (emit) => follow("/overview", emit), receive);
showBuild();
showThing();
