// @ts-check
// The lines that the run logs, repeats merged.
import {html, useMemo, useState} from "../html.js";
import {merge, useKnown} from "../known.js";
import {useThen} from "../timeline/moments.js";
import {clock, count, cut} from "../words.js";

const LEVELS = ["debug", "info", "warning", "error"];
const SHOWN = 300;

export function Lines() {
  const run = useKnown();
  const [level, setLevel] = useState("info");
  const [task, setTask] = useState("");
  const least = LEVELS.indexOf(level);
  const then = useThen(run, "lines", {cycle: run.moment ?? 0, level, most: SHOWN, ...task && {task}});
  const merged = useMemo(() => {
    /** @type {import("../known.js").Line[]} */ const lines = [];
    for (const line of [...then?.lines ?? []].reverse()) merge(lines, line);
    return lines;
  }, [then]);
  const back = run.moment !== null;
  const named = back ? [...(run.graph?.tasks ?? []).map(({id}) => id), "flowrun"] : run.lines.map(line => line.task);
  const tasks = [...new Set(named.filter(Boolean))].sort();
  const found = back ? merged : run.lines.filter(line => rank(line.level) >= least && (!task || line.task === task));
  const more = back ? then?.more && "until this moment; there are earlier ones" : found.length > SHOWN && `the newest ${SHOWN} of ${count(found.length)}`;
  return html`<div class="lines">
    <div class="filters">
      <label>Level <select value=${level} onChange=${(/** @type {any} */ event) => setLevel(event.target.value)}>
        ${LEVELS.map(name => html`<option>${name}</option>`)}</select></label>
      <label>Task <select value=${task} onChange=${(/** @type {any} */ event) => setTask(event.target.value)}>
        <option value="">all</option>${tasks.map(name => html`<option>${name}</option>`)}</select></label>
      <span>${more || (back ? "until this moment" : "")}</span>
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label="Log lines, newest first"><ol>
      ${found.slice(0, SHOWN).map(line => html`<li key=${line.key} class=${line.level}>
        <time>${clock(line.timestamp_nanos)}</time> <b>${line.level}</b> ${line.task && html`<i>${line.task}</i>`}
        <span>${cut(line.message)}${cut(fieldsOf(line.fields))}</span>
        ${line.count > 1 && html`<span class="pill">×${count(line.count)}</span>`}</li>`)}
    </ol>${!found.length && html`<p class="empty">${back ? then ? "No such line until this moment." : "Reading …" : `No lines${run.lines.length ? " of this kind" : " yet"}.`}</p>`}</div>
  </div>`;
}
/** @param {string} level */
const rank = level => Math.max(0, LEVELS.indexOf(level === "critical" ? "error" : level));
/** @param {Record<string, any>} fields */
const fieldsOf = fields => Object.entries(fields ?? {}).filter(([name]) => !["task", "exception"].includes(name))
  .map(([name, value]) => `  ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("");
