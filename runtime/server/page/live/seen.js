// @ts-check
// What detectors see now, and how much of it they have seen.
import {html} from "../html.js";
import {useKnown} from "../known.js";
import {count} from "../words.js";

export function Seen() {
  const run = useKnown();
  const tasks = Object.keys(run.detections);
  if (!tasks.length) return html`<p class="empty">No detections yet. They come from tasks such as Detect.</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Detections">
    <table><thead><tr><th scope="col">task</th><th scope="col">class</th><th scope="col">now</th>
      <th scope="col">surest</th><th scope="col">boxes so far</th></tr></thead>
    <tbody>${tasks.flatMap(task => Object.entries(run.seen[task] ?? {}).sort((a, b) => b[1] - a[1]).map(([name, number]) => {
      const now = run.detections[task].detections.filter(box => box.class === name);
      const surest = Math.max(...now.map(box => box.confidence));
      return html`<tr key=${`${task} ${name}`}><th scope="row">${task}</th><td>${name}</td><td>${count(now.length)}</td>
        <td>${now.length ? surest.toFixed(2) : "–"}</td><td>${count(number)}</td></tr>`;
    }))}</tbody></table></div>`;
}
