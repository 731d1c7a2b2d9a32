// @ts-check
// Latencies over time.
import {html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
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

export function Latencies() {
  const [chosen, choose] = useState(0);
  return html`<div class="latencies">
    <div class="filters" role="group" aria-label="What is plotted">${PLOTS.map(({name, unit}, at) => html`<button type="button"
      class="preset" aria-pressed=${at === chosen} onClick=${() => choose(at)}>${name} (${unit})</button>`)}</div>
    <${Plot} key=${chosen} plot=${PLOTS[chosen]} />
  </div>`;
}

/** @param {{plot: typeof PLOTS[number]}} props */
function Plot({plot}) {
  const run = useKnown();
  const box = useRef(/** @type {any} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const names = [...new Set(run.samples.flatMap(sample => Object.keys(plot.of(sample))))].sort();
  useEffect(() => {
    if (!names.length) return;
    const colour = (/** @type {string} */ name) => {
      box.current.style.setProperty("color", `var(${name})`);
      return getComputedStyle(box.current).color;
    };
    const axis = {stroke: colour("--dim"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}};
    const size = () => ({width: box.current.clientWidth, height: Math.max(90, box.current.clientHeight - 30)});
    const made = new Chart({
      ...size(), cursor: {drag: {setScale: false}}, legend: {live: true},
      axes: [{...axis, values: (/** @type {any} */ _, /** @type {number[]} */ times) => times.map(at => clock(at * 1e9).slice(0, 8))}, {...axis, size: 46}],
      series: [{label: "time", value: (/** @type {any} */ _, /** @type {number | null} */ at) => at == null ? "–" : clock(at * 1e9).slice(0, 8)}, ...names.map((name, at) => ({label: name, stroke: colour(`--hue${at % 6}`), width: 1.5, spanGaps: true,
        points: {show: plot.name === "answers"},
        value: (/** @type {any} */ _, /** @type {number | null} */ value) => value == null ? "–" : `${value.toPrecision(3)} ${plot.unit}`}))],
    }, data(run.samples, names, plot), box.current);
    chart.current = made;
    const resized = new ResizeObserver(() => made.setSize(size()));
    resized.observe(box.current);
    return () => { resized.disconnect(); made.destroy(); chart.current = null; };
  }, [names.join(" "), document.documentElement.dataset.theme]);
  useEffect(() => { chart.current?.setData(data(run.samples, names, plot)); }, [run.samples.at(-1)]);
  return html`<div class="plot" ref=${box}>${!names.length && html`<p class="empty">Nothing to plot yet.</p>`}</div>`;
}

/** @param {Sample[]} samples @param {string[]} names @param {typeof PLOTS[number]} plot @returns {any} */
const data = (samples, names, plot) => [samples.map(({at}) => at),
  ...names.map(name => samples.map(sample => {
    const value = plot.of(sample)[name];
    return value === undefined ? null : value * plot.scale;
  }))];
