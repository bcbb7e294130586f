/** The board: whole states from the feed, one number per order. Ages count from when a state was received. */

import { follow, share } from "./live.js";
import { $, Announcer, about, chime, clock, duration, element, keepAwake, language, show, t, timeOfDay, unlockSound, write } from "./page.js";
import { drawCode } from "./qr.js";

/** Without a sign for so long the board says that it may be out of date. The server sends one every 15 s. */
const STALE_AFTER_MS = 20_000;
const DIM_AFTER_MS = 5 * 60_000;
const FLASH_MS = 3_000;
const SHIFT_EVERY_MS = 10 * 60_000;
const RELOAD_HOUR = 4;

const query = new URLSearchParams(location.search);
const isOn = (/** @type {string} */ name) => query.get(name) === "1";
const announcer = new Announcer();
/** @type {any} */
let board = null;
let lastSign = Date.now();
let isLive = false;
/** @type {Set<string> | null} Ready in the state before; null before the first one. */
let known = null;

share("board", (emit) => follow("/board", emit), (event, data) => {
  if (event === "lost" || event === "stopping") isLive = false;
  if (event === "sign" || event === "board") lastSign = Date.now();
  if (event === "sign" || event === "open" || event === "board") isLive = true;
  if (event === "board") {
    board = data;
    render();
  }
  tick();
});

function render() {
  const { ready = [], making = [], next = [] } = board;
  const fresh = ready.filter((/** @type {any} */ { number }) => known && !known.has(number));
  known = new Set(ready.map((/** @type {any} */ { number }) => number));
  fill("ready", ready, board.ready_more ?? 0);
  fill("making", making, board.making_more ?? 0);
  fill("next", next, Math.max(0, board.waiting - next.length));
  const { waiting: n, estimated_wait_ms: wait, crew } = board;
  const length = n ? t("line.waiting", { n }) : t("line.empty");
  show($("summary"), n && crew === "away" ? `${length} · ${t("crew.away")}` : n && wait ? `${length}, ${about(wait)}` : length);
  const message = board.message?.[language] ?? board.message?.en;
  const until = board.until && t("order.closed_until", { time: timeOfDay(board.until) });
  show($("closed"), board.open === false && [t("board.closed"), message ?? until].filter(Boolean).join(" · "));
  if (fresh.length > 0) arrive(fresh.map((/** @type {any} */ { number }) => number));
}

/**
 * Shows the orders of a column. Elements stay with their numbers, so that only what changes is painted and read.
 * @param {"ready" | "making" | "next"} name
 * @param {{number: string, name?: string, ready_ms?: number}[]} orders
 * @param {number} more
 */
function fill(name, orders, more) {
  const list = $(`${name}-list`);
  const there = new Map([...list.children].map((item) => [item.dataset.number, item]));
  const items = orders.map(({ number, name: customer }) => {
    const item = there.get(number) ?? element("li", { "data-number": number }, element("strong"), element("span"), element("small"));
    const [strong, span] = item.children;
    write(strong, number);
    show(span, customer);
    item.lastElementChild.hidden = true;
    return item;
  });
  // Moved only if the order differs.
  if (items.length !== list.children.length || items.some((item, index) => list.children[index] !== item)) list.replaceChildren(...items);
  list.dataset.names = String(orders.some(({ name: customer }) => customer));
  show($(`${name}-more`), more > 0 && t("board.more", { n: more }));
  $(`${name}-none`).hidden = orders.length > 0;
}

/** @param {string[]} numbers */
function arrive(numbers) {
  if (isOn("sound")) chime([660, 880]);
  announcer.say(numbers.map((number) => t("board.say_ready", { number })).join(", "), true);
  for (const number of numbers) {
    const item = $("ready-list").querySelector(`[data-number="${CSS.escape(number)}"]`);
    item?.classList.add("fresh");
    setTimeout(() => item?.classList.remove("fresh"), FLASH_MS);
  }
  document.title = `${numbers[0]} · ${t("board.title")}`;
}

function tick() {
  const now = Date.now();
  write($("clock"), timeOfDay(now));
  const silence = now - lastSign;
  const isStale = silence > STALE_AFTER_MS;
  document.body.classList.toggle("stale", isStale);
  document.body.classList.toggle("dim", silence > DIM_AFTER_MS);
  write($("connection"), isStale ? t("board.stale", { time: clock(silence) }) : t(isLive ? "connection.live" : "connection.connecting"));
  if (!board) return;
  for (const { number, ready_ms: since } of board.ready ?? []) {
    const age = since + now - board.at;
    const item = $("ready-list").querySelector(`[data-number="${CSS.escape(number)}"] small`);
    if (item) show(item, age >= 60_000 && duration(Math.floor(age / 60_000) * 60_000));
  }
}

/** Against burnt-in pictures. */
function shift() {
  const steps = 4;
  document.body.dataset.shift = String((Number(document.body.dataset.shift ?? 0) + 1) % steps);
}

const order = new URL("/", location.href);
write($("address"), order.host);
// A television cannot be told to a phone by the name that it has for itself.
if (!["localhost", "127.0.0.1", "[::1]"].includes(order.hostname)) $("qr").toggleAttribute("hidden", !drawCode($("qr"), order.href));

if (isOn("kiosk")) {
  document.body.classList.add("kiosk");
  keepAwake(true);
  const until = new Date();
  until.setHours(RELOAD_HOUR, 0, 0, 0);
  if (until.getTime() <= Date.now()) until.setDate(until.getDate() + 1);
  setTimeout(() => location.reload(), until.getTime() - Date.now());
}
if (isOn("sound")) {
  unlockSound(true);
  const offer = () => ($("sound").hidden = unlockSound());
  setTimeout(offer, 500);
  $("sound").addEventListener("click", () => setTimeout(offer, 100));
}
setInterval(tick, 1_000);
setInterval(shift, SHIFT_EVERY_MS);
tick();
