// @ts-check
// What detectors see now, how much of it they have seen, and what zones and lines have counted.
import {html} from "../html.js";
import {endOf, useKnown} from "../known.js";
import {count} from "../words.js";
import {useThen} from "../timeline/moments.js";
import {detectionsThen, regionsThen} from "./cameras.js";

export function Seen() {
  const run = useKnown();
  const back = run.moment !== null;
  const before = useThen(run, "seen", {cycle: run.moment ?? 0});
  const found = back ? detectionsThen(run) : Object.values(run.detections);
  const regions = back ? regionsThen(run) : Object.values(run.regions);
  if (!found.length && !regions.length) return html`<p class="empty">${back ? "Nothing was found until this moment." : "No detections yet. They come from tasks such as Detect."}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Detections">
    <table><thead><tr><th scope="col">task</th><th scope="col">class</th><th scope="col">${back ? "then" : "now"}</th>
      <th scope="col">surest</th><th scope="col">${back ? "boxes in the minute before" : "boxes so far"}</th></tr></thead>
    <tbody>${found.flatMap(one => {
      const {task, detections} = one;
      const where = found.some(other => other !== one && other.task === task) ? endOf(one) : task;
      const counts = (back ? before?.[task] ?? before?.[endOf(one)] : run.seen[task]) ?? {};
      const classes = new Set([...detections.map(box => box.class), ...Object.keys(counts).sort((a, b) => counts[b] - counts[a])]);
      return [...classes].map(name => {
        const now = detections.filter(box => box.class === name);
        const sure = now.flatMap(({confidence}) => confidence === null ? [] : [confidence]);
        return html`<tr key=${`${where} ${name}`}><th scope="row">${where}</th><td>${name}</td><td>${count(now.length)}</td>
          <td>${sure.length ? Math.max(...sure).toFixed(2) : "–"}</td><td>${count(counts[name])}</td></tr>`;
      });
    })}</tbody></table>
    ${regions.length > 0 && html`<${Counts} all=${regions} when=${back ? "then" : "now"} />`}</div>`;
}

/** @param {{all: import("../known.js").Regions[], when: string}} props */
const Counts = ({all, when}) => html`<table><thead><tr><th scope="col">task</th><th scope="col">zone or line</th><th scope="col">inside ${when}</th>
    <th scope="col">in</th><th scope="col">out</th></tr></thead>
  <tbody>${all.flatMap(({task, zones, lines}) => [
    ...zones.map(({name, count: now, total}) => html`<tr key=${`${task} ${name}`}><th scope="row">${task}</th><td>${name}</td>
      <td>${count(now)}</td><td>${count(total)}</td><td>–</td></tr>`),
    ...lines.map(({name, in: ins, out: outs}) => html`<tr key=${`${task} ${name}`}><th scope="row">${task}</th><td>${name}</td>
      <td>–</td><td>${count(ins)}</td><td>${count(outs)}</td></tr>`),
  ])}</tbody></table>`;
