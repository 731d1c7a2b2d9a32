// @ts-check
// The lanes, to drag in.
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState} from "../html.js";
import {HEAD, ROW, draw, drawCursor, since} from "./painting.js";
import {cycleAt, cycleNear, isIn, partAt, shifted, timeAt, zoomed} from "./scale.js";

/** @typedef {import("./scale.js").Lane} Lane */
/** @typedef {import("./scale.js").Lanes} Lanes */
/** @typedef {import("./scale.js").Marks} Marks */
/** @typedef {import("./scale.js").Span} Span */

const ZOOM = 1.3;
/** After this long in one place a drag rests: then its own cycle is shown, not the key frame near it. */
const REST_MS = 150;
/** After this long in one place a pointer that drags nothing may be about to press there. */
const HOVER_MS = 120;
/** @type {Record<string, string>} */
const NAMES = {
  answers: "answers", disagreements: "disagrees", alerts: "alerts", errors: "errors", settings: "changes", injected: "published", drops: "drops",
  keyframes: "keyframes", labels: "marked wrong", "what-if": "what if",
};
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
