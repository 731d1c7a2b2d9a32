// @ts-check
// The parts that are seen one at a time.
import {html, useRef, useState} from "../html.js";
import {GraphView} from "./graph.js";
import {Latencies} from "./latencies.js";
import {Lines} from "./lines.js";
import {Seen} from "./seen.js";

/** @type {[string, string, () => any][]} */
const TABS = [
  ["graph", "Graph", GraphView],
  ["latencies", "Latencies", Latencies],
  ["lines", "Log", Lines],
  ["seen", "Detections", Seen],
];

export function Tabs() {
  const [chosen, choose] = useState("graph");
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  /** @param {KeyboardEvent} event */
  const key = event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const at = (TABS.findIndex(([id]) => id === chosen) + step + TABS.length) % TABS.length;
    choose(TABS[at][0]);
    /** @type {HTMLElement} */ (list.current?.children[at]).focus();
  };
  const Shown = TABS.find(([id]) => id === chosen)?.[2] ?? GraphView;
  return html`<section class="tabs" aria-label="Details">
    <div role="tablist" aria-label="Details" ref=${list} onKeyDown=${key}>
      ${TABS.map(([id, name]) => html`<button type="button" role="tab" id=${`tab-${id}`} aria-selected=${id === chosen}
        aria-controls="panel" tabindex=${id === chosen ? 0 : -1} onClick=${() => choose(id)}>${name}</button>`)}
    </div>
    <div role="tabpanel" id="panel" aria-labelledby=${`tab-${chosen}`}><${Shown} /></div>
  </section>`;
}
