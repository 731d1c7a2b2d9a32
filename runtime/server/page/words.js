// @ts-check
// Numbers and times in words.

/** @param {unknown} value @returns {value is number} */
export const known = value => typeof value === "number" && Number.isFinite(value);

/** @param {unknown} us */
export function micros(us) {
  if (!known(us)) return "–";
  if (us < 1000) return `${us.toFixed(0)} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
}
/** @param {unknown} ms */
export function millis(ms) {
  if (!known(ms)) return "–";
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
const NUMBERS = new Intl.NumberFormat("en");  // `toLocaleString` looks for one each time
/** @param {unknown} n */
export const count = n => known(n) ? NUMBERS.format(n) : "–";
/** @param {number} n @param {string} one @param {string} [many] */
export const counted = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** @param {unknown} n */
export function bytes(n) {
  if (!known(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit ? n.toFixed(n < 10 ? 1 : 0) : n} ${units[unit]}`;
}
/** @param {unknown} s */
export function duration(s) {
  if (!known(s)) return "–";
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${Math.floor(s % 60)} s` : `${Math.floor(s)} s`;
}
/** @param {number} n */
const two = n => String(n).padStart(2, "0");
/** The time of day, in the zone of whoever looks. @param {number} ns since 1970 UTC */
export function clock(ns) {
  const t = new Date(ns / 1e6);
  const ms = String(t.getMilliseconds()).padStart(3, "0");
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}.${ms}`;
}
/** @type {Record<string, string>} */
const ENDINGS = {SIGTERM: "it was asked to end (SIGTERM)", SIGINT: "Ctrl-C", SIGHUP: "its terminal was closed"};
/** Why a run ended, for people. @param {string} reason as a report gives it */
export const ending = reason => ENDINGS[reason] ?? reason;

/** "good", "fair" or "slow". @param {unknown} ms how long an answer took */
export const speed = ms => !known(ms) ? "" : ms < 1000 ? "good" : ms < 3000 ? "fair" : "slow";
/** Two bounds as one text, "6.1 – 7.3 s". @param {number} low @param {number} high in milliseconds */
export function span(low, high) {
  const [a, b] = [millis(low), millis(high)];
  if (a === b) return a;
  const [number, unit] = a.split(" ");
  return b.endsWith(` ${unit}`) ? `${number}–${b}` : `${a} – ${b}`;
}

const LONGEST = 20_000;
/** A text of any length, as far as anybody reads it. @param {string} text */
export const cut = text => text.length > LONGEST ? `${text.slice(0, LONGEST)} … (${count(text.length - LONGEST)} more characters)` : text;
