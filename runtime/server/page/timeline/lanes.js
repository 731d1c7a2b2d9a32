// @ts-check
// The lanes as they are drawn, and which cycle is where in them.
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState} from "../html.js";

/** What `GET .../lanes` gives.
 * @typedef {{kind: string, task: string, counts: number[]}} Lane
 * @typedef {{from_cycle: number, to_cycle: number, first_cycle: number, last_cycle: number, from_ns: number,
 *   to_ns: number, cycles: number[], frames: number[], lanes: Lane[], state: string, why: string | null,
 *   missing: string[], start_ns: number, end_ns: number, keys?: number[], gaps: Gap[]}} Lanes
 * @typedef {{from_cycle: number, to_cycle: number, from_ns: number, to_ns: number}} Gap what was not recorded
 * @typedef {{from: number, to: number}} Span cycles, both included
 * @typedef {{kind: string, task: string, marks: number[]}} Marks cycles that are marked
 */

const ROW = 17;
const HEAD = 13;
const ZOOM = 1.3;
const FEWEST = 8;
/** After this long in one place a drag rests: then its own cycle is shown, not the key frame near it. */
const REST_MS = 150;
/** After this long in one place a pointer that drags nothing may be about to press there. */
const HOVER_MS = 120;
/** @type {Record<string, string>} */
const NAMES = {
  answers: "answers", disagreements: "disagrees", alerts: "alerts", errors: "errors", settings: "changes", injected: "published", drops: "drops",
  keyframes: "keyframes", labels: "marked wrong", "what-if": "what if",
};
/** @type {Record<string, string>} */
const COLORS = {
  answers: "--hue0", disagreements: "--hue2", alerts: "--hue5", errors: "--slow", settings: "--hue3", injected: "--hue4", drops: "--fair",
  keyframes: "--dim", labels: "--hue1", "what-if": "--hue2",
};

/** The cycle at a part of the width. @param {Lanes} lanes @param {number} part from 0 to 1 */
export function cycleAt(lanes, part) {
  const ns = timeAt(lanes, part);
  const gap = lanes.gaps.find(({from_ns, to_ns}) => from_ns < ns && ns < to_ns);
  if (gap) return gap.from_cycle + Math.floor((gap.to_cycle - gap.from_cycle + 1) * (ns - gap.from_ns) / (gap.to_ns - gap.from_ns));
  const {cycles, frames} = lanes;
  const at = Math.min(Math.max(part, 0), 1) * frames.length;
  const bin = Math.min(Math.floor(at), frames.length - 1);
  const cycle = Math.floor(cycles[bin] + (cycles[bin + 1] - cycles[bin]) * (at - bin));
  return Math.min(Math.max(cycle, lanes.from_cycle), lanes.to_cycle);
}
/** The cycle to show while somebody drags there: with a key frame, whose picture is there soonest, if there is
 * one not farther away than the parts are wide. @param {Lanes} lanes @param {number} part
 */
export function cycleNear(lanes, part) {
  const exact = cycleAt(lanes, part);
  if (isIn(lanes.gaps, exact)) return exact;
  const bin = Math.min(Math.floor(part * lanes.frames.length), lanes.frames.length - 1);
  const key = lanes.keys?.[bin];
  const wide = Math.max(1, lanes.cycles[bin + 1] - lanes.cycles[bin]);
  if (key === undefined || key < lanes.from_cycle || lanes.cycles[bin] - key > wide) return exact;
  return key;
}
/** The part of the width at which a cycle is; less than 0 or more than 1 where it is outside.
 * @param {Lanes} lanes @param {number} cycle
 */
export function partAt(lanes, cycle) {
  const gap = lanes.gaps.find(({from_cycle, to_cycle}) => from_cycle <= cycle && cycle <= to_cycle);
  if (gap) {
    const at = (cycle + .5 - gap.from_cycle) / (gap.to_cycle - gap.from_cycle + 1);
    return (gap.from_ns + (gap.to_ns - gap.from_ns) * at - lanes.from_ns) / Math.max(1, lanes.to_ns - lanes.from_ns);
  }
  const {cycles, frames} = lanes;
  if (cycle < cycles[0]) return -1;
  let [low, high] = [0, frames.length];  // the last edge at or before the cycle
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (cycles[middle] <= cycle) low = middle; else high = middle - 1;
  }
  if (low === frames.length) return 2;
  return (low + (cycle - cycles[low]) / Math.max(1, cycles[low + 1] - cycles[low])) / frames.length;
}
/** Whether a cycle was not recorded. @param {Gap[]} gaps @param {number} cycle */
const isIn = (gaps, cycle) => gaps.some(({from_cycle, to_cycle}) => from_cycle <= cycle && cycle <= to_cycle);
/** The time at a part of the width, in nanoseconds. @param {Lanes} lanes @param {number} part */
export const timeAt = (lanes, part) => lanes.from_ns + (lanes.to_ns - lanes.from_ns) * part;
/** The cycle at a time. @param {Lanes} lanes @param {number} ns */
export const cycleOfTime = (lanes, ns) =>
  cycleAt(lanes, (ns - lanes.from_ns) / Math.max(1, lanes.to_ns - lanes.from_ns));

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
function draw(pen, lanes, rows, width, range, color) {
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
function drawCursor(pen, part, width, height, color) {
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

/** The lanes, to drag in: a slider over the cycles.
 * @param {{lanes: Lanes, marks: Marks[], cycle: number | null, range: Span | null, text: string,
 *   onMove: (part: number, rests: boolean) => void, onRange: (range: Span) => void, onView: (view: Span | null) => void,
 *   onWidth: (width: number) => void, onEnter: () => void, onHover: (cycle: number | null) => void}} props
 *   onHover: called with the cycle where the pointer rests without a drag, and with null when it goes on.
 *   onMove: called with `rests` false while somebody drags, and true when they stop.
 */
export function LaneChart({lanes, marks, cycle, range, text, onMove, onRange, onView, onWidth, onEnter, onHover}) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [width, setWidth] = useState(0);
  const [theme, setTheme] = useState(0);
  const [hover, setHover] = useState(/** @type {number | null} */ (null));
  const drag = useRef(/** @type {{range: boolean, from: number} | null} */ (null));
  const rest = useRef(0);
  const rows = [...lanes.lanes, ...marks];
  const height = HEAD + rows.length * ROW;

  useEffect(() => {
    const element = /** @type {HTMLCanvasElement} */ (canvas.current);
    const sizes = new ResizeObserver(([entry]) => {
      setWidth(Math.round(entry.contentRect.width));
      onWidth(Math.round(entry.contentRect.width));
    });
    sizes.observe(element);
    const repaint = () => setTheme(it => it + 1);
    const themes = new MutationObserver(repaint);
    themes.observe(document.documentElement, {attributes: true});
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", repaint);
    return () => { sizes.disconnect(); themes.disconnect(); scheme.removeEventListener("change", repaint); };
  }, []);
  // What a drag leaves as it is, is drawn once: of all that a moment changes it took the longest.
  const still = useMemo(() => document.createElement("canvas"), []);
  const cursor = useRef("");
  useLayoutEffect(() => {
    const element = /** @type {HTMLCanvasElement} */ (canvas.current);
    const dots = pixels();
    still.width = Math.max(1, width * dots);
    still.height = height * dots;
    const pen = /** @type {CanvasRenderingContext2D} */ (still.getContext("2d"));
    pen.scale(dots, dots);
    // A colour of the page, which may be light-dark(): as it is computed here.
    const color = (/** @type {string} */ name) => {
      element.style.color = `var(${name})`;
      return getComputedStyle(element).color;
    };
    cursor.current = color("--accent");
    if (width) draw(pen, lanes, rows, width, range, color);
  }, [lanes, marks, range?.from, range?.to, width, height, theme]);
  useLayoutEffect(() => {
    const element = /** @type {HTMLCanvasElement} */ (canvas.current);
    if (element.width !== still.width || element.height !== still.height) [element.width, element.height] = [still.width, still.height];
    const pen = /** @type {CanvasRenderingContext2D} */ (element.getContext("2d"));
    pen.resetTransform();
    pen.clearRect(0, 0, element.width, element.height);
    pen.drawImage(still, 0, 0);
    pen.scale(pixels(), pixels());
    if (width) drawCursor(pen, cycle === null ? 1 : partAt(lanes, cycle), width, height, cursor.current);
  }, [lanes, marks, cycle, range?.from, range?.to, width, height, theme]);

  const part = (/** @type {MouseEvent} */ event) => {
    const box = /** @type {HTMLCanvasElement} */ (canvas.current).getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  useEffect(() => {  // not by preact: a browser lets nobody stop the scrolling in its own listeners
    const element = /** @type {HTMLCanvasElement} */ (canvas.current);
    const wheel = (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      const long = lanes.to_cycle - lanes.from_cycle + 1;
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        onView(shifted(lanes, Math.round(long * event.deltaX / 800)));
      } else {
        onView(zoomed(lanes, cycleAt(lanes, part(event)), event.deltaY > 0 ? ZOOM : 1 / ZOOM));
      }
    };
    element.addEventListener("wheel", wheel, {passive: false});
    return () => element.removeEventListener("wheel", wheel);
  }, [lanes]);

  const down = (/** @type {PointerEvent} */ event) => {
    if (event.button) return;
    /** @type {HTMLCanvasElement} */ (canvas.current).setPointerCapture(event.pointerId);
    drag.current = {range: event.shiftKey, from: cycleAt(lanes, part(event))};
    move(event);
  };
  const move = (/** @type {PointerEvent} */ event) => {
    setHover(part(event));
    clearTimeout(rest.current);
    if (!drag.current) {
      const cycle = cycleAt(lanes, part(event));
      onHover(null);
      rest.current = setTimeout(() => onHover(cycle), HOVER_MS);
      return;
    }
    if (!drag.current.range) {
      const at = part(event);
      rest.current = setTimeout(() => onMove(at, true), REST_MS);
      return onMove(at, false);
    }
    const [a, b] = [drag.current.from, cycleAt(lanes, part(event))].sort((x, y) => x - y);
    onRange({from: a, to: b});
  };
  const up = (/** @type {PointerEvent} */ event) => {
    clearTimeout(rest.current);
    if (drag.current && !drag.current.range) onMove(part(event), true);
    drag.current = null;
  };
  const at = hover === null ? null : cycleAt(lanes, hover);
  return html`<div class="lane-chart">
    <ul class="lane-names" aria-hidden="true">${rows.map(row => html`<li key=${row.kind + row.task}
      class=${`lane-${row.kind}`} title=${`${NAMES[row.kind] ?? row.kind} ${row.task}`}>
      ${NAMES[row.kind] ?? row.kind} <small>${row.task}</small></li>`)}</ul>
    <canvas ref=${canvas} style=${{height: `${height}px`}} tabindex="0" role="slider" aria-label="Moment of the run"
      aria-valuemin=${lanes.first_cycle} aria-valuemax=${lanes.last_cycle}
      aria-valuenow=${cycle ?? lanes.last_cycle} aria-valuetext=${text} data-lanes=${lanes.lanes.length}
      data-from=${lanes.from_cycle} data-to=${lanes.to_cycle}
      onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}
      onPointerEnter=${onEnter} onPointerLeave=${() => { setHover(null); if (!drag.current) clearTimeout(rest.current); onHover(null); }}></canvas>
    ${at === null ? null : html`<output class="lane-hover" style=${{
      left: `calc(var(--lane-names) + ${100 * /** @type {number} */ (hover)}% - ${/** @type {number} */ (hover)} * var(--lane-names))`,
      transform: `translateX(-${100 * /** @type {number} */ (hover)}%)`}}>cycle ${at}${isIn(lanes.gaps, at) ? ", not recorded" : ""} · ${
      since((timeAt(lanes, /** @type {number} */ (hover)) - lanes.start_ns) / 1e9, .1)}</output>`}
  </div>`;
}

/** Of the screen, to one of the page. */
const pixels = () => devicePixelRatio || 1;

/** A part of the run around a cycle, `factor` times as long as the present one; null for all of it.
 * @param {Lanes} lanes @param {number} around @param {number} factor @returns {Span | null}
 */
export function zoomed(lanes, around, factor) {
  const {from_cycle: from, to_cycle: to, first_cycle: first, last_cycle: last} = lanes;
  const long = Math.max(FEWEST, Math.round((to - from + 1) * factor));
  if (long >= last - first + 1) return null;
  const before = Math.round((around - from) / Math.max(1, to - from) * long);
  const begin = Math.min(Math.max(first, around - before), last - long + 1);
  return {from: begin, to: begin + long - 1};
}
/** @param {Lanes} lanes @param {number} by cycles @returns {Span | null} */
function shifted(lanes, by) {
  const long = lanes.to_cycle - lanes.from_cycle;
  if (lanes.first_cycle + long >= lanes.last_cycle) return null;
  const begin = Math.min(Math.max(lanes.first_cycle, lanes.from_cycle + by), lanes.last_cycle - long);
  return {from: begin, to: begin + long};
}
