// @ts-check
// The graph as it runs: rates on the wires, times, drops and errors in the tasks.
import {html, useMemo, useState} from "../html.js";
import {owner, useKnown} from "../known.js";
import {count, micros} from "../words.js";

/** @typedef {import("../known.js").Graph} Graph */
/** @typedef {import("../known.js").GraphTask} GraphTask */
/** @typedef {{x: number, y: number, wide: number}} Place */

const [HIGH, ROW_GAP, COLUMN_GAP] = [50, 9, 76];
/** @param {string} text @param {number} n */
const short = (text, n) => text.length > n ? `${text.slice(0, n - 1)}…` : text;

/** Where each task is drawn: in columns, each after all that it reads.
 * @param {Graph} graph */
function layout({tasks, cnx}) {
  const ids = new Set(tasks.map(({id}) => id));
  const wires = cnx.map(({src, dst, msg}) => ({from: owner(src), to: owner(dst), msg: msg ?? ""}))
    .filter(({from, to}) => ids.has(from) && ids.has(to));
  const rank = Object.fromEntries(tasks.map(({id}) => [id, 0]));
  for (let round = 0; round < tasks.length; round += 1)
    for (const {from, to} of wires) rank[to] = Math.min(tasks.length, Math.max(rank[to], rank[from] + 1));
  /** @type {GraphTask[][]} */ const columns = [];
  for (const task of tasks) (columns[rank[task.id]] ??= []).push(task);
  const filled = columns.filter(Boolean);
  const tall = Math.max(1, ...filled.map(column => column.length)) * (HIGH + ROW_GAP) - ROW_GAP;
  /** @type {Record<string, Place>} */ const at = {};
  let x = 2;
  for (const column of filled) {
    const wide = Math.max(118, ...column.map(({id, type}) =>
      Math.max(short(id, 22).length * 8.2, short(String(type), 24).length * 6.6) + 24));
    const top = (tall - (column.length * (HIGH + ROW_GAP) - ROW_GAP)) / 2 + 2;
    column.forEach(({id}, row) => { at[id] = {x, y: top + row * (HIGH + ROW_GAP), wide}; });
    x += wide + COLUMN_GAP;
  }
  return {at, wires, wide: x - COLUMN_GAP + 4, tall: tall + 4};
}

export function GraphView() {
  const run = useKnown();
  const [chosen, choose] = useState(/** @type {string | null} */ (null));
  const drawn = useMemo(() => run.graph && layout(run.graph), [run.graph]);
  if (!run.graph?.tasks.length || !drawn) return html`<p class="empty">There is no graph${run.recorded === null ? " yet" : " in this log"}.</p>`;
  const {at, wires, wide, tall} = drawn;
  const reports = run.report?.tasks ?? {};
  const task = run.graph.tasks.find(({id}) => id === chosen);
  return html`<div class="graph"><div class="scroll" tabindex="0" role="region" aria-label="The tasks and their connections">
    <svg width=${wide} height=${tall} role="group" aria-label="Graph">
      ${wires.map(({from, to, msg}) => html`<${Wire} key=${`${from} ${to}`} a=${at[from]} b=${at[to]} title=${`${from} → ${to}: ${msg}`} />`)}
      ${[...new Set(wires.map(({from}) => from))].map(from => html`<text class="hz" key=${from} x=${at[from].x + at[from].wide + 4}
        y=${at[from].y + HIGH / 2 - 6}>${rateOf(run.moment === null ? reports[from]?.rate_hz : run.then?.rates_hz[from])}</text>`)}
      ${run.graph.tasks.map(({id, type, background}) => {
        const place = at[id];
        const report = run.moment === null ? reports[id] : reportThen(run, id);
        const role = !wires.some(({to}) => to === id) ? "source" : !wires.some(({from}) => from === id) ? "sink" : "";
        const wrong = report?.late_s != null ? "late" : report?.raised ? "failed" : "";
        const facts = [report && micros(report.p50_us), report?.dropped ? `−${count(report.dropped)}` : "",
          report?.shadow ? `≠${count(report.shadow.disagreed)}/${count(report.shadow.compared)}` : ""].filter(Boolean).join("  ");
        const trouble = report?.late_s != null ? "hangs" : report?.raised ? `${count(report.raised.count)} errors`
          : report?.state && !["starting", "running", "ended"].includes(report.state) ? report.code || report.state : "";
        const press = (/** @type {KeyboardEvent} */ event) => {
          if (["Enter", " "].includes(event.key)) { event.preventDefault(); choose(id === chosen ? null : id); }
        };
        return html`<g key=${id} class="task ${role} ${wrong} ${background ? "background" : ""} ${id === chosen ? "chosen" : ""}" tabindex="0"
            role="button" aria-pressed=${id === chosen}
            onClick=${() => choose(id === chosen ? null : id)} onKeyDown=${press}>
          <rect x=${place.x} y=${place.y} width=${place.wide} height=${HIGH} rx="8" />
          <text class="id" x=${place.x + 12} y=${place.y + 17}>${short(id, 22)}</text>
          <text class="type" x=${place.x + 12} y=${place.y + 31}>${short(String(type), 24)}</text>
          <text class="facts" x=${place.x + 12} y=${place.y + 45}>${facts}</text>
          <text class="trouble" x=${place.x + place.wide - 8} y=${place.y + 45} text-anchor="end">${trouble}</text>
        </g>`;
      })}
    </svg></div>
    ${task && html`<${TaskCard} task=${task} close=${() => choose(null)} />`}
    ${run.moment === null && run.report?.links?.length ? html`<${Links} part=${run.report.part ?? ""} all=${run.report.links} />` : null}
  </div>`;
}

const MOODS = {connecting: "hold", connected: "good", lost: "slow", refused: "slow", ended: ""};

/** The links of this process to those of other partitions.
 * @param {{part: string, all: import("../known.js").Link[]}} props */
function Links({part, all}) {
  return html`<section class="backends links" aria-label="Links to other partitions"><h3>${part}</h3><ul>
    ${all.map(link => html`<li key=${`${link.direction} ${link.peer}`} data-peer=${link.peer} data-direction=${link.direction}
        data-state=${link.state} class=${MOODS[link.state]}>
      <b>${link.direction === "in" ? "from" : "to"} ${link.peer}</b> <span class="how">${howIs(link)}</span></li>`)}
  </ul></section>`;
}

/** @param {import("../known.js").Link} link */
function howIs({state, lag_cycles, gaps, skipped, damaged, clock_offset_ms, refused}) {
  return [refused ? `${state}: ${refused}` : state, lag_cycles && `${count(lag_cycles)} cycles behind`,
    gaps && `${count(gaps)} ${gaps === 1 ? "gap" : "gaps"}`, skipped && `${count(skipped)} passed over`,
    damaged && `${count(damaged)} damaged`,
    clock_offset_ms !== null && `clock ${clock_offset_ms > 0 ? "+" : ""}${clock_offset_ms.toFixed(1)} ms`].filter(Boolean).join(", ");
}

/** How often a task publishes, where that is known. @param {number | null | undefined} hz */
const rateOf = hz => hz == null ? "" : `${hz.toFixed(hz && hz < 1 ? 2 : 1)} Hz`;

/** How a task was at the moment looked at. @param {import("../known.js").Known} run @param {string} id
 * @returns {any} */
function reportThen({then}, id) {
  const step = then?.steps_ms[id], failed = then?.error_counts[id], dropped = then?.dropped[id] ?? 0;
  const {state = null, code = ""} = then?.sources[id] ?? {};
  const text = then?.errors.find(({task}) => task === id)?.text ?? "";
  return {p50_us: step === undefined ? null : step * 1e3, late_s: null, dropped, dropped_by: dropped ? {"": dropped} : {}, state, code,
    shadow: then?.shadows[id], ...failed && {raised: {count: failed, text}}};
}

/** @param {{a: Place, b: Place, title: string}} props */
function Wire({a, b, title}) {
  const [x1, y1, x2, y2] = [a.x + a.wide, a.y + HIGH / 2, b.x - 6, b.y + HIGH / 2];
  const bend = Math.max(24, (x2 - x1) / 2);
  return html`<g class="wire"><path d=${`M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`}><title>${title}</title></path>
    <path class="tip" d=${`M${x2 + 6},${y2} l-8,-4 v8 z`} /></g>`;
}

/** How often a shadow disagrees with its task, and about what. @param {import("../known.js").Shadow} shadow */
function disagreement({of, compared, disagreed, last}) {
  const said = last && `, the last time: "${last.said}" and "${last.shadow_said}" (cycle ${last.frame_cycle})`;
  return `with ${of} about ${count(disagreed)} of ${count(compared)} frames${said ?? ""}`;
}

/** What the graph file says of a task, and how it is. @param {{task: GraphTask, close: () => void}} props */
function TaskCard({task, close}) {
  const run = useKnown();
  const report = run.moment === null ? run.report?.tasks[task.id] : reportThen(run, task.id);
  const dropped = Object.entries(report?.dropped_by ?? {}).map(([cause, number]) => `${count(number)} ${cause || "left out"}`).join(", ");
  const config = {...task.config, ...(run.moment === null ? run.settings : run.then?.settings)?.[task.id]};
  const rows = [
    run.moment === null ? ["p50, p99", `${micros(report?.p50_us)}, ${micros(report?.p99_us)}`] : ["took", micros(report?.p50_us)],
    ...report?.state ? [["state", report.code ? `${report.state}: ${report.code}` : report.state]] : [],
    ...dropped ? [["left out", dropped]] : [],
    ...report?.shadow ? [["disagrees", disagreement(report.shadow)]] : [],
    ...report?.raised ? [[`errors ×${count(report.raised.count)}`, report.raised.text]] : [],
    ...Object.entries(config).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  ];
  return html`<aside class="card" aria-label=${task.id}>
    <h2>${task.id} <small>${task.type}${task.background ? ", in the background" : ""}</small>
      <button type="button" class="icon" aria-label="Close" onClick=${close}>×</button></h2>
    <dl>${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </aside>`;
}
