// @ts-check
// Latencies over time.
import {html, useEffect, useMemo, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {useThen} from "../timeline/moments.js";
import {clock} from "../words.js";
import Chart from "../vendor/uplot.js";

/** @typedef {import("../known.js").Sample} Sample */

/** What is plotted: a name, its unit, the values of its series in a sample.
 * @type {{name: string, unit: string, of: (sample: Sample) => Record<string, number>, scale: number}[]} */
const PLOTS = [
  {name: "answers", unit: "s", of: sample => sample.answers, scale: 1e-3},
  {name: "steps, p50", unit: "ms", of: sample => sample.p50, scale: 1e-3},
  {name: "cycles", unit: "1/s", of: sample => ({cycles: sample.rate}), scale: 1},
];

const PARTS = 200;  // of a recorded run

export function Latencies() {
  const run = useKnown();
  const [chosen, choose] = useState(0);
  // A recorded run is read once; one that goes on has more by each moment.
  const then = useThen(run, "latencies", run.recorded === null ? {bins: PARTS, to: run.moment ?? 0} : {bins: PARTS});
  const past = useMemo(() => then && samplesOf(then), [then]);
  const back = run.moment !== null;
  return html`<div class="latencies">
    <div class="filters" role="group" aria-label="What is plotted">${PLOTS.map(({name, unit}, at) => html`<button type="button"
      class="preset" aria-pressed=${at === chosen} onClick=${() => choose(at)}>${name} (${unit})</button>`)}</div>
    <${Plot} key=${`${chosen} ${back}`} plot=${PLOTS[chosen]} samples=${back ? past ?? [] : run.samples}
      moment=${back && run.then ? run.then.at_ns / 1e9 : null} />
  </div>`;
}

/** What `GET .../latencies` gives, as samples. @param {any} found @returns {Sample[]} */
const samplesOf = found => found.at_ns.map((/** @type {number} */ ns, /** @type {number} */ at) => ({
  at: ns / 1e9, rate: found.rate_hz[at], p50: column(found.steps_ms, at, 1e3), answers: column(found.answers_ms, at, 1)}));
/** @param {Record<string, (number | null)[]>} columns @param {number} at @param {number} scale @returns {Record<string, number>} */
const column = (columns, at, scale) => Object.fromEntries(
  Object.entries(columns).flatMap(([name, values]) => { const ms = values[at]; return ms === null ? [] : [[name, ms * scale]]; }));

/** @param {{plot: typeof PLOTS[number], samples: Sample[], moment: number | null}} props
 *   moment: where a line is drawn, in seconds since 1970 */
function Plot({plot, samples, moment}) {
  const marked = useRef(moment);
  marked.current = moment;
  const box = useRef(/** @type {any} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const names = [...new Set(samples.flatMap(sample => Object.keys(plot.of(sample))))].sort();
  useEffect(() => {
    if (!names.length) return;
    const colour = (/** @type {string} */ name) => {
      box.current.style.setProperty("color", `var(${name})`);
      return getComputedStyle(box.current).color;
    };
    const axis = {stroke: colour("--dim"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}};
    const size = () => ({width: box.current.clientWidth, height: Math.max(90, box.current.clientHeight - 30)});
    const made = new Chart({
      ...size(), hooks: {draw: [(/** @type {any} */ it) => mark(it, marked.current, colour("--accent"))]}, cursor: {drag: {setScale: false}}, legend: {live: true},
      axes: [{...axis, values: (/** @type {any} */ _, /** @type {number[]} */ times) => times.map(at => clock(at * 1e9).slice(0, 8))}, {...axis, size: 46}],
      series: [{label: "time", value: (/** @type {any} */ _, /** @type {number | null} */ at) => at == null ? "–" : clock(at * 1e9).slice(0, 8)}, ...names.map((name, at) => ({label: name, stroke: colour(`--hue${at % 6}`), width: 1.5, spanGaps: true,
        points: {show: plot.name === "answers"},
        value: (/** @type {any} */ _, /** @type {number | null} */ value) => value == null ? "–" : `${value.toPrecision(3)} ${plot.unit}`}))],
    }, data(samples, names, plot), box.current);
    chart.current = made;
    const resized = new ResizeObserver(() => { if (box.current) made.setSize(size()); });
    resized.observe(box.current);
    return () => { resized.disconnect(); made.destroy(); chart.current = null; };
  }, [names.join(" "), document.documentElement.dataset.theme]);
  useEffect(() => { chart.current?.setData(data(samples, names, plot)); }, [samples, samples.at(-1)]);
  useEffect(() => { chart.current?.redraw(false); }, [moment]);
  return html`<div class="plot" ref=${box}>${!names.length && html`<p class="empty">${moment === null ? "Nothing to plot yet." : "Nothing of this kind until this moment."}</p>`}</div>`;
}

/** A line at a moment. @param {any} chart @param {number | null} at @param {string} colour */
function mark(chart, at, colour) {
  if (at === null) return;
  const {ctx, bbox: {left, top, width, height}} = chart;
  const x = Math.min(Math.max(chart.valToPos(at, "x", true), left), left + width - 1);
  ctx.fillStyle = colour;
  ctx.fillRect(x - 1, top, 2, height);
}

/** @param {Sample[]} samples @param {string[]} names @param {typeof PLOTS[number]} plot @returns {any} */
const data = (samples, names, plot) => [samples.map(({at}) => at),
  ...names.map(name => samples.map(sample => {
    const value = plot.of(sample)[name];
    return value === undefined ? null : value * plot.scale;
  }))];
