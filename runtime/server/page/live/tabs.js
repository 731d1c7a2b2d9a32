// @ts-check
// The parts that are seen one at a time.
import {html, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {Fleet} from "./fleet.js";
import {GraphView} from "./graph.js";
import {Latencies} from "./latencies.js";
import {Lines} from "./lines.js";
import {Seen} from "./seen.js";
import {Shadows, shadowsOf} from "./shadows.js";

/** @type {[string, string, () => any][]} */
const TABS = [
  ["graph", "Graph", GraphView],
  ["latencies", "Latencies", Latencies],
  ["lines", "Log", Lines],
  ["seen", "Detections", Seen],
  ["shadows", "Shadow", Shadows],
  ["fleet", "Fleet", Fleet],
];

export function Tabs() {
  const run = useKnown();
  const fleet = run.report?.fleet ?? [];
  const isThere = (/** @type {string} */ id) => id === "shadows" ? Object.keys(shadowsOf(run)).length > 0
    : id !== "fleet" || fleet.length > 1 || run.fleet !== null;
  const tabs = TABS.filter(([id]) => isThere(id));
  const [wanted, choose] = useState(location.hash === "#fleet" ? "fleet" : "graph");
  const chosen = tabs.some(([id]) => id === wanted) ? wanted : "graph";
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  /** @param {KeyboardEvent} event */
  const key = event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const at = (tabs.findIndex(([id]) => id === chosen) + step + tabs.length) % tabs.length;
    choose(tabs[at][0]);
    /** @type {HTMLElement} */ (list.current?.children[at]).focus();
  };
  const Shown = tabs.find(([id]) => id === chosen)?.[2] ?? GraphView;
  return html`<section class="tabs" aria-label="Details">
    <div role="tablist" aria-label="Details" ref=${list} onKeyDown=${key}>
      ${tabs.map(([id, name]) => html`<button type="button" role="tab" id=${`tab-${id}`} aria-selected=${id === chosen}
        aria-controls="panel" tabindex=${id === chosen ? 0 : -1} onClick=${() => choose(id)}>${name}${id === "fleet" && fleet.length > 0 && html` <${Summary} fleet=${fleet} />`}</button>`)}
    </div>
    <div role="tabpanel" id="panel" aria-labelledby=${`tab-${chosen}`}><${Shown} /></div>
  </section>`;
}

/** How many of a fleet's processes run. @param {{fleet: import("../known.js").Part[]}} props */
function Summary({fleet}) {
  const well = fleet.filter(({state}) => ["running", "ended"].includes(state)).length;
  const mood = fleet.some(({state}) => ["gone", "failed", "stuck"].includes(state)) ? "slow" : well === fleet.length ? "good" : "hold";
  return html`<span class="pill ${mood}">${well}/${fleet.length}</span>`;
}
