/**
 * QR codes (ISO/IEC 18004) of short addresses: byte mode, error correction level M, versions 1 to 6, mask 0.
 * Six versions hold 106 bytes, and none of them has version information or unequal blocks.
 */

/** Per version: data codewords and error correction codewords of a block, and how many blocks. */
const BLOCKS = [[16, 10, 1], [28, 16, 1], [44, 26, 1], [32, 18, 2], [43, 24, 2], [27, 16, 4]];
/** Level M with mask 0, with its own error correction. */
const FORMAT = 0b101010000010010;
const QUIET_ZONE = 4;

// Powers and logarithms in the field of 256 elements with the polynomial 0x11d.
const power = new Uint8Array(255);
const log = new Uint8Array(256);
for (let exponent = 0, value = 1; exponent < 255; exponent++) {
  [power[exponent], log[value]] = [value, exponent];
  value = value & 0x80 ? (value << 1) ^ 0x11d : value << 1;
}
/** @param {number} a @param {number} b */
const times = (a, b) => (a && b ? power[(log[a] + log[b]) % 255] : 0);

/** The Reed-Solomon remainder. @param {number[]} data @param {number} count */
function correction(data, count) {
  let divisor = [1];
  for (let root = 0; root < count; root++) {
    divisor = [...divisor, 0].map((value, index) => value ^ times(divisor[index - 1] ?? 0, power[root]));
  }
  const rest = [...data, ...Array(count).fill(0)];
  for (let at = 0; at < data.length; at++) {
    const factor = rest[at];
    divisor.forEach((value, index) => (rest[at + index] ^= times(value, factor)));
  }
  return rest.slice(data.length);
}

/** The codewords of a text in a version, interleaved. @param {Uint8Array} text @param {number[]} block */
function codewords(text, [size, corrections, count]) {
  const bits = [0b0100, ...text].map((value, index) => value.toString(2).padStart(index ? 8 : 4, "0"));
  bits.splice(1, 0, text.length.toString(2).padStart(8, "0"));
  const stream = `${bits.join("")}0000`;
  const data = Array.from({ length: text.length + 2 }, (_, index) => parseInt(stream.slice(index * 8, index * 8 + 8), 2));
  for (let pad = 0xec; data.length < size * count; pad ^= 0xec ^ 0x11) data.push(pad);
  const blocks = Array.from({ length: count }, (_, index) => data.slice(index * size, (index + 1) * size));
  const all = blocks.map((block) => [block, correction(block, corrections)]);
  return [0, 1].flatMap((part) => all[0][part].flatMap((_, index) => all.map((block) => block[part][index])));
}

/** The dark modules of a text as rows; null if it is too long. @param {string} content */
export function matrix(content) {
  const text = new TextEncoder().encode(content);
  const version = BLOCKS.findIndex(([size, , count]) => text.length + 2 <= size * count) + 1;
  if (version === 0) return null;
  const side = 17 + 4 * version;
  /** @type {(boolean | undefined)[][]} Undefined where data goes. */
  const rows = Array.from({ length: side }, () => Array(side).fill(undefined));
  const set = (/** @type {number} */ x, /** @type {number} */ y, /** @type {boolean} */ dark) => {
    if (x >= 0 && y >= 0 && x < side && y < side) rows[y][x] = dark;
  };
  const square = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ radius, /** @type {(ring: number) => boolean} */ dark) => {
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) set(x + dx, y + dy, dark(Math.max(Math.abs(dx), Math.abs(dy))));
    }
  };
  for (let at = 8; at < side - 8; at++) {
    set(at, 6, at % 2 === 0);
    set(6, at, at % 2 === 0);
  }
  for (const [x, y] of [[3, 3], [side - 4, 3], [3, side - 4]]) square(x, y, 4, (ring) => ring !== 2 && ring !== 4);
  if (version > 1) square(side - 7, side - 7, 2, (ring) => ring !== 1);
  for (let bit = 0; bit < 15; bit++) {
    const dark = ((FORMAT >> bit) & 1) === 1;
    // Once around the upper left corner, once split between the other two.
    if (bit < 8) set(8, bit < 6 ? bit : bit + 1, dark);
    else set(bit === 8 ? 7 : 14 - bit, 8, dark);
    if (bit < 8) set(side - 1 - bit, 8, dark);
    else set(8, side - 15 + bit, dark);
  }
  set(8, side - 8, true);
  const bits = codewords(text, BLOCKS[version - 1]).flatMap((word) => [7, 6, 5, 4, 3, 2, 1, 0].map((bit) => (word >> bit) & 1));
  let at = 0;
  for (let right = side - 1, upwards = true; right > 0; right -= 2, upwards = !upwards) {
    if (right === 6) right = 5;
    for (let step = 0; step < side; step++) {
      const y = upwards ? side - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (rows[y][x] === undefined) rows[y][x] = Boolean(bits[at++]) !== ((x + y) % 2 === 0);
      }
    }
  }
  return rows;
}

/** Draws the code of a text; false if it is too long. @param {SVGElement} svg @param {string} content */
export function drawCode(svg, content) {
  const rows = matrix(content);
  if (!rows) return false;
  const side = rows.length + 2 * QUIET_ZONE;
  const dark = rows.flatMap((row, y) => row.map((is, x) => (is ? `M${x + QUIET_ZONE} ${y + QUIET_ZONE}h1v1h-1z` : "")));
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", dark.join(""));
  svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
  svg.replaceChildren(path);
  return true;
}
