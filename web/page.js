/** What the pages share: texts, times, elements, storage, sound and the screen's lock. */

/** Of the texts and of the page: the server has chosen it by `?lang=` or the browser's languages. */
export const language = document.documentElement.lang === "de" ? "de" : "en";

/** @type {Record<string, string | Record<string, string>>} */
const texts = await (await fetch(`/ui/${language}.json`)).json();
/** With the region of the browser, if it is the same language: its clock may have 12 hours or 24. */
const locale = navigator.languages.find((tag) => tag.startsWith(language)) ?? language;
const plural = new Intl.PluralRules(language);
const digits = new Intl.NumberFormat(locale);

/** @typedef {Record<string, string | number | null | undefined>} Values */

/**
 * The text of a key with its `{placeholders}` filled; `n` decides between singular and plural.
 * @param {string} key
 * @param {Values} [values]
 */
export function t(key, values = {}) {
  const found = texts[key] ?? key;
  const text = typeof found === "string" ? found : found[plural.select(Number(values.n))] ?? found.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name] ?? "";
    return typeof value === "number" ? digits.format(value) : value;
  });
}

/** @param {string} key */
export const hasText = (key) => key in texts;

/** `7:05`, from milliseconds; negative ones are 0:00. @param {number} ms */
export function clock(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** @param {number} value @param {"second" | "minute" | "hour"} unit */
const inUnits = (value, unit) =>
  new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short" }).format(value);

/** `45 s`, `4 min`, `1 h 5 min`. @param {number} ms */
export function duration(ms) {
  const minutes = Math.round(ms / 60_000);
  if (ms < 59_500) return inUnits(Math.max(1, Math.round(ms / 1000)), "second");
  if (minutes < 60) return inUnits(minutes, "minute");
  const rest = minutes % 60;
  return inUnits(Math.floor(minutes / 60), "hour") + (rest ? ` ${inUnits(rest, "minute")}` : "");
}

/** An estimate, no more precise than it is. @param {number} ms */
export const about = (ms) => (ms < 45_000 ? t("duration.soon") : t("about", { time: duration(Math.max(ms, 60_000)) }));

const hours = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });

/** `10:37`. @param {number | string | Date} at */
export const timeOfDay = (at) => hours.format(new Date(at));

/**
 * The element of an id, which is in the page: a test compares the ids.
 * @param {string} id
 * @returns {any}
 */
export const $ = (id) => document.getElementById(id);

/**
 * A new element with attributes and children; an attribute that is false or undefined is left out.
 * @param {string} tag
 * @param {Record<string, string | boolean | undefined>} [attributes]
 * @param {...(Node | string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Changes an element's text only if it differs: assistive technology reads every change. @param {Element} of @param {string} text */
export function write(of, text) {
  if (of.textContent !== text) of.textContent = text;
}

/** Shows a text in an element, or hides it without one. @param {HTMLElement} of @param {string | null | undefined | false} text */
export function show(of, text) {
  write(of, text || "");
  of.hidden = !text;
}

/** Reports to assistive technology, at most every 10 s; what is urgent at once. */
export class Announcer {
  #last = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #later;

  /** @param {string} text @param {boolean} [urgent] */
  say(text, urgent = false) {
    clearTimeout(this.#later);
    const wait = urgent ? 0 : this.#last + 10_000 - performance.now();
    this.#later = setTimeout(() => {
      this.#last = performance.now();
      write($("said"), text);
    }, Math.max(0, wait));
  }
}

/** @type {Map<string, unknown>} */
const unstored = new Map();

/** Values that outlive the page, unless the browser refuses to store any. */
export const stored = {
  /** @param {string} name */
  read(name) {
    try {
      return JSON.parse(localStorage.getItem(`odyssey.${name}`) ?? "null");
    } catch {
      return /** @type {any} */ (unstored.get(name) ?? null);
    }
  },
  /** Null removes it. @param {string} name @param {unknown} value */
  write(name, value) {
    try {
      if (value === null) localStorage.removeItem(`odyssey.${name}`);
      else localStorage.setItem(`odyssey.${name}`, JSON.stringify(value));
    } catch {
      unstored.set(name, value);
    }
  },
};

/** @type {AudioContext | undefined} */
let audio;

/**
 * Browsers play sound only after a touch or a key: called by one. `allowed`: the browser was told to play it in any case.
 * Returns whether sound can be played now.
 */
export function unlockSound(allowed = false) {
  // Otherwise they complain in the console; Shift alone is no key.
  if (!audio && !allowed && navigator.userActivation?.hasBeenActive === false) return false;
  audio ??= new AudioContext();
  if (audio.state === "suspended") audio.resume().catch(() => {});
  return audio.state === "running";
}

/** Plays these frequencies (Hz) one after the other. @param {number[]} tones */
export function chime(tones) {
  if (!audio || audio.state !== "running") return;
  tones.forEach((frequency, index) => {
    const at = /** @type {AudioContext} */ (audio).currentTime + index * 0.22;
    const [tone, volume] = [new OscillatorNode(/** @type {AudioContext} */ (audio), { frequency }), new GainNode(/** @type {AudioContext} */ (audio))];
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(0.3, at + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.6);
    tone.connect(volume).connect(/** @type {AudioContext} */ (audio).destination);
    tone.start(at);
    tone.stop(at + 0.6);
  });
}

/** @type {WakeLockSentinel | null} */
let screenLock = null;
let stayAwake = false;

/** Asks the browser to leave the screen on, or lets it go dark. @param {boolean} on */
export async function keepAwake(on) {
  stayAwake = on;
  if (on && !screenLock && document.visibilityState === "visible") {
    screenLock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
    screenLock?.addEventListener("release", () => (screenLock = null));
  }
  if (!stayAwake) screenLock?.release().catch(() => {});
}

for (const event of ["click", "keydown"]) addEventListener(event, () => unlockSound());
// The browser releases it when the page is hidden.
document.addEventListener("visibilitychange", () => keepAwake(stayAwake));
