// @ts-check
// All processes of the graph, and the links between them, as this one knows them.
import {html} from "../html.js";
import {useKnown} from "../known.js";
import {linksOf} from "../links.js";
import {RecordedFleet} from "./recorded-fleet.js";
import {count, counted, duration} from "../words.js";

/** @typedef {import("../known.js").Part} Part */
/** @typedef {import("../links.js").Between} Between */

const BEHIND_S = 2;  // from which on a link is behind, and not only under way

const PART_MOODS = {unknown: "", starting: "hold", running: "good", stuck: "slow", ended: "", failed: "slow", gone: "slow"};
const LINK_MOODS = {connecting: "hold", connected: "good", lost: "slow", refused: "slow", ended: ""};

export function Fleet() {
  const run = useKnown();
  if (run.fleet) return html`<${RecordedFleet} fleet=${run.fleet} />`;
  const fleet = run.report?.fleet ?? [];
  const links = linksOf(fleet);
  return html`<div class="scroll fleet" tabindex="0" role="region" aria-label="Partitions and links">
    <table aria-label="Partitions"><thead><tr><th scope="col">partition</th><th scope="col">state</th><th scope="col">cycles/s</th>
      <th scope="col">cycles</th><th scope="col">errors</th><th scope="col">dropped</th><th scope="col">restarts</th><th scope="col">up</th></tr></thead>
    <tbody>${fleet.map(part => html`<${PartRow} key=${part.part} part=${part} own=${part.part === run.report?.part} />`)}</tbody></table>
    ${links.length > 0 && html`<table aria-label="Links"><thead><tr><th scope="col">link</th><th scope="col">state</th><th scope="col">behind</th>
      <th scope="col">gaps</th><th scope="col">passed over</th><th scope="col">damaged</th><th scope="col">reconnects</th><th scope="col">clock</th></tr></thead>
    <tbody>${links.map(it => html`<${LinkRow} key=${`${it.sender} ${it.receiver}`} between=${it} />`)}</tbody></table>`}
  </div>`;
}

/** @param {{part: Part, own: boolean}} props */
function PartRow({part, own}) {
  const {state, page, heard_s, error} = part;
  const heard = state !== "unknown";
  const reached = page && !own && new URL(page).hostname === location.hostname;
  const text = state === "gone" ? `gone for ${duration(heard_s)}` : state === "unknown" ? "not heard of yet" : state;
  return html`<tr data-part=${part.part} data-state=${state}><th scope="row">${reached
      ? html`<a href=${page}>${part.part}</a>` : part.part}${own && html` <small>this page</small>`}</th>
    <td><span class="pill ${PART_MOODS[state]}">${text}</span></td>
    <td>${heard ? part.cycle_rate_hz.toFixed(1) : "–"}</td><td>${heard ? count(part.cycles) : "–"}</td>
    <td class=${part.errors ? "wrong" : ""}>${heard ? count(part.errors) : "–"}</td><td>${heard ? count(part.dropped) : "–"}</td>
    <td>${count(part.restarts)}</td><td>${heard ? duration(part.uptime_s) : "–"}</td></tr>
  ${error && html`<tr class="said-last"><td colspan="8">${part.part}: ${error}</td></tr>`}`;
}

/** @param {{between: Between}} props */
function LinkRow({between}) {
  const {sender, receiver, link, behind_s} = between;
  const {state, lag_cycles, gaps, skipped, damaged, reconnects, clock_offset_ms, refused} = link;
  const isBehind = behind_s !== null && behind_s >= BEHIND_S && state === "connected";
  const seconds = behind_s !== null && behind_s >= 0.1 ? ` (${behind_s.toFixed(1)} s)` : "";
  return html`<tr data-link=${`${sender} ${receiver}`} data-state=${isBehind ? "behind" : state}>
    <th scope="row">${sender} → ${receiver}</th>
    <td><span class="pill ${isBehind ? "fair" : LINK_MOODS[state]}">${isBehind ? "behind" : state}</span></td>
    <td title=${counted(lag_cycles, "cycle")}>${count(lag_cycles)}${seconds}</td>
    <td class=${gaps ? "wrong" : ""}>${count(gaps)}</td><td>${count(skipped)}</td><td class=${damaged ? "wrong" : ""}>${count(damaged)}</td>
    <td>${count(reconnects)}</td>
    <td>${clock_offset_ms === null ? "–" : `${clock_offset_ms > 0 ? "+" : ""}${clock_offset_ms.toFixed(1)} ms`}</td></tr>
  ${refused && html`<tr class="said-last"><td colspan="8">${refused}</td></tr>`}`;
}
