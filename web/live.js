/**
 * Event streams. They are read with fetch, because EventSource hides statuses, headers and comments. A stream is opened
 * again whenever it ends; each starts with the whole state, so nothing is replayed. The tabs of a browser share one
 * stream: it may open only six connections to a server.
 */

/** Without a byte for so long a connection is dead: the server sends a comment every 15 s. */
const SILENCE_MAX_MS = 45_000;
/** A tab that answers no other tab for so long is suspended. */
const ANSWER_MAX_MS = 3_000;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;

/**
 * An error answer (RFC 9457) with its short type, its request id, and the limit it names.
 * @typedef {{slug: string, status: number, title: string, detail: string, retryMs: number, requestId: string,
 *   limit: number | null, until: number, message?: Record<string, string>}} Problem
 */

/** @param {Response} response @returns {Promise<Problem>} */
export async function problemOf(response) {
  /** @type {any} */
  const body = await response.json().catch(() => ({}));
  return problem(body, response.status, response.headers);
}

/** @param {any} body @param {number} [status] @param {Headers} [headers] @returns {Problem} */
export function problem(body, status = body.status ?? 0, headers = new Headers()) {
  const seconds = body.retry_after_s ?? Number(headers.get("retry-after") ?? 0);
  const limit = /\bq=(\d+)/.exec(headers.get("ratelimit-policy") ?? "");
  return {
    slug: String(body.type ?? "unreachable").replace(/^.*:/, ""),
    status,
    title: body.title ?? "",
    detail: body.detail ?? "",
    retryMs: seconds * 1000,
    requestId: headers.get("x-request-id") ?? "",
    limit: limit && Number(limit[1]),
    until: Date.now() + seconds * 1000,
    message: body.message,
  };
}

/** How long to wait before the next attempt: twice as long each time, with jitter, and at once when the page is seen again. */
export class Retry {
  #delay = RETRY_MIN_MS;

  reset() {
    this.#delay = RETRY_MIN_MS;
  }

  /** @param {number} [atLeast] milliseconds that the server asked for */
  async wait(atLeast = 0) {
    const delay = Math.max(atLeast, this.#delay * (0.5 + Math.random() / 2));
    this.#delay = Math.min(this.#delay * 2, RETRY_MAX_MS);
    const woken = new AbortController();
    const on = { signal: woken.signal };
    await new Promise((resolve) => {
      setTimeout(resolve, delay);
      if (atLeast > 0) return;
      addEventListener("online", resolve, on);
      addEventListener("pageshow", resolve, on);
      document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && resolve(0), on);
    });
    woken.abort();
  }
}

/**
 * Opens a stream and reads it to its end. Returns a problem if it was refused.
 * @param {string} url
 * @param {RequestInit} request
 * @param {{opened?: (response: Response) => void, sign?: () => void, message: (event: string, data: any) => void}} on
 *   `sign`: something was received, if only a comment
 * @param {AbortSignal} [signal]
 * @returns {Promise<Problem | null>}
 */
export async function readStream(url, request, on, signal) {
  const ending = new AbortController();
  const end = () => ending.abort();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(end, SILENCE_MAX_MS);
  };
  // Some browsers notice a lost network only after minutes, but say that they are offline.
  addEventListener("offline", end);
  signal?.addEventListener("abort", end);
  try {
    heard();
    const headers = { ...request.headers, Accept: "text/event-stream" };
    const response = await fetch(url, { ...request, headers, cache: "no-store", signal: ending.signal });
    if (!response.ok || !response.body) return await problemOf(response);
    on.opened?.(response);
    await readEvents(response.body, () => (heard(), on.sign?.()), on.message);
    return null;
  } finally {
    clearTimeout(silence);
    removeEventListener("offline", end);
    signal?.removeEventListener("abort", end);
    end();
  }
}

/**
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} sign
 * @param {(event: string, data: any) => void} message
 */
async function readEvents(body, sign, message) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let [rest, event, data] = ["", "", ""];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    sign();
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data += line.slice(5).trim();
      else if (line === "") {
        if (data) message(event, JSON.parse(data));
        [event, data] = ["", ""];
      }
    }
  }
}

/**
 * Reads a feed for as long as the page is open. Emits the feed's events, and of its own: `open`, `sign`, `lost`,
 * `refused` with a problem.
 * @param {string} url
 * @param {(event: string, data?: any) => void} emit
 */
export async function follow(url, emit) {
  const retry = new Retry();
  for (;;) {
    const message = (/** @type {string} */ event, /** @type {any} */ data) => {
      retry.reset();
      // Its ages and remaining times count from here. Never compared with the server's clock.
      emit(event, { ...data, at: Date.now() });
    };
    const on = { opened: () => emit("open"), sign: () => emit("sign"), message };
    const refused = await readStream(url, {}, on).catch(() => null);
    emit("lost");
    if (refused) emit("refused", refused);
    await retry.wait(refused?.retryMs);
  }
}

/**
 * Runs `lead` in one of the tabs that share this name; another one takes over when it is closed, or does not answer
 * because the browser has suspended it. What `lead` emits is received in every tab, and the latest of each kind in a tab
 * that is opened later. Without locks (plain HTTP) each tab leads itself. Returns what to call to emit from any tab.
 * @param {string} name
 * @param {(emit: (event: string, data?: any) => void) => Promise<void>} lead
 * @param {(event: string, data: any) => void} receive
 */
export function share(name, lead, receive) {
  const channel = new BroadcastChannel(`odyssey.${name}`);
  /** @type {Map<string, any>} In the order of reception. */
  const latest = new Map();
  let [leads, isAnswered] = [false, false];
  const received = (/** @type {string} */ event, /** @type {any} */ data) => {
    latest.delete(event);
    latest.set(event, data);
    receive(event, data);
  };
  const emit = (/** @type {string} */ event, /** @type {any} */ data = null) => {
    channel.postMessage({ event, data });
    received(event, data);
  };
  channel.onmessage = ({ data: { event, data } }) => {
    if (event !== "hello") isAnswered = true;
    if (event === "hello" && leads) for (const [event, data] of [...latest, ["here", null]]) channel.postMessage({ event, data });
    else if (event !== "hello" && event !== "here") received(event, data);
  };
  const work = () => {
    leads = true;
    return lead(emit);
  };
  if (!navigator.locks) {
    work();
    return emit;
  }
  // A tab that was replaced starts again, and follows.
  const request = (/** @type {LockOptions} */ options) =>
    navigator.locks.request(`odyssey.${name}`, options, work).catch((error) => error.name === "AbortError" && location.reload());
  channel.postMessage({ event: "hello" });
  request({});
  document.addEventListener("visibilitychange", () => {
    if (leads || document.visibilityState !== "visible") return;
    isAnswered = false;
    channel.postMessage({ event: "hello" });
    setTimeout(() => isAnswered || leads || request({ steal: true }), ANSWER_MAX_MS);
  });
  return emit;
}
