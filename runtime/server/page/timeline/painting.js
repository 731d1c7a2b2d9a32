// @ts-check
// The lanes as they are drawn.
import {partAt} from "./scale.js";

/** @typedef {import("./scale.js").Lane} Lane */
/** @typedef {import("./scale.js").Lanes} Lanes */
/** @typedef {import("./scale.js").Marks} Marks */
/** @typedef {import("./scale.js").Span} Span */

export const ROW = 17;
export const HEAD = 13;
/** @type {Record<string, string>} */
const COLORS = {
  answers: "--hue0", disagreements: "--hue2", alerts: "--hue5", errors: "--slow", settings: "--hue3", injected: "--hue4", drops: "--fair",
  keyframes: "--dim", labels: "--hue1", "what-if": "--hue2",
};

/** Where for much longer than usual no cycle came: the first part, and the one after.
 * @param {number[]} frames
 */
function quiet(frames) {
  const usual = frames.length / Math.max(1, frames.reduce((sum, it) => sum + it, 0));
  /** @type {[number, number][]} */
  const found = [];
  for (let bin = 0; bin < frames.length; bin += 1) {
    const first = bin;
    while (bin < frames.length && !frames[bin]) bin += 1;
    if (bin - first > Math.max(1, 5 * usual)) found.push([first, bin]);
  }
  return found;
}

/** All but the cursor. @param {CanvasRenderingContext2D} pen @param {Lanes} lanes @param {(Lane | Marks)[]} rows
 * @param {number} width @param {Span | null} range @param {(name: string) => string} color
 */
export function draw(pen, lanes, rows, width, range, color) {
  const height = HEAD + rows.length * ROW;
  const bins = lanes.frames.length;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = color("--idle-back");
  for (const [first, end] of quiet(lanes.frames)) {
    pen.fillRect(first * width / bins, HEAD, (end - first) * width / bins, height - HEAD);
  }
  for (const {from_ns, to_ns} of lanes.gaps) stripes(pen, lanes, [from_ns, to_ns], width, height, color("--dim"));
  if (range) {
    const [a, b] = [partAt(lanes, range.from), partAt(lanes, range.to + 1)].map(it => Math.min(Math.max(it, 0), 1) * width);
    pen.fillStyle = color("--hold-back");
    pen.fillRect(a, 0, Math.max(2, b - a), height);
    pen.fillStyle = color("--hold");
    pen.fillRect(a, 0, 2, height);
    pen.fillRect(Math.max(a, b - 2), 0, 2, height);
  }
  ticks(pen, lanes, width, height, color);
  rows.forEach((row, number) => {
    const bottom = HEAD + (number + 1) * ROW - 2;
    pen.fillStyle = color("--line");
    pen.fillRect(0, bottom + 1, width, 1);
    pen.fillStyle = color(COLORS[row.kind] ?? "--dim");
    if ("marks" in row) {
      for (const mark of row.marks) {
        const part = partAt(lanes, mark);
        if (part >= 0 && part <= 1) pen.fillRect(part * width - 1.5, bottom - ROW + 5, 3, ROW - 5);
      }
      return;
    }
    const most = Math.log1p(Math.max(...row.counts, 1));
    row.counts.forEach((count, bin) => {
      if (!count) return;
      const high = Math.max(3, (ROW - 4) * Math.log1p(count) / most);
      pen.fillRect(bin * width / bins, bottom - high, Math.max(1.5, width / bins - .5), high);
    });
  });
}

/** Where somebody looks. @param {CanvasRenderingContext2D} pen @param {number} part of the width @param {number} width
 * @param {number} height @param {string} color
 */
export function drawCursor(pen, part, width, height, color) {
  if (part < 0 || part > 1) return;
  const x = Math.min(Math.max(part * width, 1), width - 1);
  pen.fillStyle = color;
  pen.fillRect(x - 1, 0, 2, height);
  pen.beginPath();
  pen.moveTo(x - 5, 0);
  pen.lineTo(x + 5, 0);
  pen.lineTo(x, 7);
  pen.fill();
}

/** What was not recorded. @param {CanvasRenderingContext2D} pen @param {Lanes} lanes @param {[number, number]} ends in ns
 * @param {number} width @param {number} height @param {string} color
 */
function stripes(pen, lanes, ends, width, height, color) {
  const [a, b] = ends.map(ns => Math.min(Math.max((ns - lanes.from_ns) / Math.max(1, lanes.to_ns - lanes.from_ns), 0), 1) * width);
  if (b - a < 1) return;
  pen.save();
  pen.beginPath();
  pen.rect(a, HEAD, b - a, height - HEAD);
  pen.clip();
  pen.strokeStyle = pen.fillStyle = color;
  pen.globalAlpha = .45;
  pen.beginPath();
  for (let x = a - height; x < b; x += 7) { pen.moveTo(x, height); pen.lineTo(x + height, 0); }
  pen.stroke();
  pen.globalAlpha = 1;
  pen.font = "10px system-ui, sans-serif";
  if (b - a > 80) pen.fillText("not recorded", a + 6, HEAD + 11);
  pen.restore();
}

const STEPS_S = [.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400, 43200, 86400];
/** Times since the first cycle. @param {CanvasRenderingContext2D} pen @param {Lanes} lanes @param {number} width
 * @param {number} height @param {(name: string) => string} color
 */
function ticks(pen, lanes, width, height, color) {
  const long = (lanes.to_ns - lanes.from_ns) / 1e9;
  const step = STEPS_S.find(it => width * it / Math.max(long, 1e-9) > 70) ?? 86400;
  const begin = (lanes.from_ns - lanes.start_ns) / 1e9;
  pen.font = "10px system-ui, sans-serif";
  for (let at = Math.ceil(begin / step) * step; at <= begin + long; at += step) {
    const x = (at - begin) / Math.max(long, 1e-9) * width;
    pen.fillStyle = color("--line");
    pen.fillRect(x, 0, 1, height);
    pen.fillStyle = color("--dim");
    if (x < width - 40) pen.fillText(since(at, step), x + 3, 9);
  }
}
/** @param {number} s @param {number} step */
export function since(s, step = 1) {
  const whole = Math.floor(s + 1e-9);
  const [h, m] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const digits = step < .1 ? 2 : step < 1 ? 1 : 0;
  const seconds = (s - 60 * Math.floor(whole / 60)).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${seconds}` : `${m}:${seconds}`;
}
