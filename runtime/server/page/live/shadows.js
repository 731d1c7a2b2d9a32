// @ts-check
// How often shadows disagree with their tasks, and about what: now, or until the moment that is looked at.
import {get} from "../api.js";
import {html, useEffect, useMemo, useState} from "../html.js";
import {useKnown} from "../known.js";
import {place, useThen} from "../timeline/moments.js";
import {clock, count, counted, cut, millis} from "../words.js";
import {Chip} from "./answers.js";
import {Frame} from "./frame.js";

/** @typedef {import("../known.js").Known} Known */
/** Two answers about one frame. cycle: in which both were there; null: an answer that the log does not hold.
 * @typedef {{cycle: number, at_ns: number, frame_cycle: number, said: string | null, shadow_said: string | null}} Both */
/** What `GET .../shadows` gives of each.
 * @typedef {{of: string, compared: number, disagreed: number, at_ns: number[],
 *   parts: {compared: number[], disagreed: number[]}, last: Both[], answers: number,
 *   errors: {count: number, text: string, cycle: number | null}, dropped: Record<string, number>,
 *   budget: {per_hour: number | null, asked: number, p99_ms: number | null, took_p99_ms: number | null} | null}} Shadow */

const PARTS = 60;
const REFRESH_MS = 2000;
/** The shadows of the run by their names, as far as they are known without asking. @param {Known} run
 * @returns {Record<string, {of: string, compared: number, disagreed: number}>} */
export function shadowsOf(run) {
  if (run.moment !== null && run.then) return run.then.shadows;
  return Object.fromEntries(Object.entries(run.report?.tasks ?? {}).flatMap(([id, {shadow}]) => shadow ? [[id, shadow]] : []));
}

/** What the log has of all shadows: asked for while somebody looks. @param {Known} run
 * @returns {Record<string, Shadow> | null} */
function useShadows(run) {
  const then = useThen(run, "shadows", {bins: PARTS, cycle: run.moment ?? 0});
  const [now, setNow] = useState(/** @type {Record<string, Shadow> | null} */ (null));
  const follows = run.moment === null && run.logs;
  useEffect(() => {
    if (!follows) return undefined;
    let over = false, timer = 0;
    const look = async () => {
      const found = document.hidden ? null : await get(`${place(run.logged)}/shadows`, {bins: PARTS}).catch(() => null);
      if (over) return;
      if (found) setNow(found);
      if (!found || !run.over) timer = setTimeout(look, REFRESH_MS);
    };
    look();
    return () => { over = true; clearTimeout(timer); };
  }, [follows, run.logged, run.over]);
  return run.moment === null ? now : then;
}

export function Shadows() {
  const run = useKnown();
  const known = shadowsOf(run), ids = Object.keys(known);
  const [wanted, choose] = useState("");
  const chosen = ids.includes(wanted) ? wanted : ids[0];
  const found = useShadows(run)?.[chosen];
  const merged = useMemo(() => mergedOf(found?.last ?? []), [found]);
  if (!chosen) return html`<p class="empty">No task of this run has a shadow.</p>`;
  const {of, compared, disagreed} = found ?? known[chosen];
  const camera = run.sourcesOf(of)[0];
  return html`<div class="shadows">
    <div class="shadow-facts" tabindex="0" role="region" aria-label="How the shadow does">
      ${ids.length > 1 && html`<div class="chips" role="group" aria-label="Which shadow">${ids.map(id => html`<button type="button"
        class="preset" key=${id} aria-pressed=${id === chosen} onClick=${() => choose(id)}>${id}</button>`)}</div>`}
      <p><b>${chosen}</b> disagrees with <b>${of}</b> about <b>${count(disagreed)}</b> of ${counted(compared, "frame")}${compared ? ` (${share(disagreed, compared)})` : ""}${run.moment === null ? "" : " until this moment"}.</p>
      <${How} run=${run} id=${chosen} shadow=${found} />
      ${found && found.at_ns.length > 0 && html`<${Rate} shadow=${found} moment=${run.moment === null ? null : run.then?.at_ns ?? null} />`}
    </div>
    <ol class="shadow-list scroll" tabindex="0" aria-label="The last disagreements, newest first">
      ${merged.map(({newest: both, times}) => html`<li key=${both.cycle} data-cycle=${both.cycle}>
        <${Frame} task=${camera} cycle=${both.frame_cycle} />
        <div class="said"><div class="meta"><button type="button" class="link" title="go to the moment when both had answered"
            onClick=${() => run.look(both.cycle)}>${clock(both.at_ns)}</button>
            <button type="button" class="link" title="go to the moment of the frame" onClick=${() => run.look(both.frame_cycle)}>frame of cycle ${count(both.frame_cycle)}</button>${times > 1 && html`<span class="pill">×${count(times)}</span>`}</div>
          ${[[of, both.said], [chosen, both.shadow_said]].map(([name, text]) => html`<p class="response" key=${name}>
            <${Chip} name=${name} among=${[of, chosen]} /> ${text === null ? html`<i>not in the log</i>` : cut(String(text)) || html`<i>an empty answer</i>`}</p>`)}
        </div></li>`)}
      ${!merged.length && html`<li class="empty">${!run.logs ? "Without a log, only the numbers are known." : !found ? "Reading the log …"
        : compared ? "They have agreed about all frames." : "No frame has been answered by both yet."}</li>`}
    </ol>
  </div>`;
}

/** What is other in a shadow, how it does, and what of its budget is spent.
 * @param {{run: Known, id: string, shadow: Shadow | undefined}} props */
function How({run, id, shadow}) {
  const config = (/** @type {string} */ task) => ({...run.graph?.tasks.find(it => it.id === task)?.config,
    ...(run.moment === null ? run.settings : run.then?.settings)?.[task]});
  const own = config(id), its = config(shadow?.of ?? "");
  const other = shadow ? ["prompt", "backend", "model"].filter(key => own[key] != null && own[key] !== its[key]) : [];
  const {errors, dropped = {}, budget, answers = 0} = shadow ?? {};
  const left = Object.entries(dropped).map(([cause, number]) => `${count(number)} ${CAUSES[cause] ?? (cause || "without a reason")}`);
  const [mood, how] = !shadow ? ["", "…"] : dropped["not loaded"] ? ["slow", "its model did not load"]
    : errors?.count && !answers ? ["slow", "fails"] : budget?.per_hour && budget.asked >= budget.per_hour ? ["fair", "its budget is spent"]
    : errors?.count ? ["fair", "answers, with errors"] : answers ? ["good", "answers"] : ["", "has not answered yet"];
  const rows = [
    ...other.map(key => [key, String(own[key])]),
    ...budget?.per_hour ? [["budget", `${count(budget.asked)} of ${count(budget.per_hour)} questions in the hour before`]] : [],
    ...budget?.p99_ms ? [["budget p99", `${millis(budget.took_p99_ms)} of ${millis(budget.p99_ms)}`]] : [],
    ...left.length ? [["left out", left.join(", ")]] : [],
    ...errors?.count ? [[`errors ×${count(errors.count)}`, errors.text]] : [],
  ];
  return html`<dl class="how-it-is"><div><dt>state</dt><dd><span class="pill ${mood}" data-how=${how}>${how}</span></dd></div>
    ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd title=${value}>${value}</dd></div>`)}</dl>`;
}
/** @type {Record<string, string>} */
const CAUSES = {"hourly budget": "by the hourly budget", "latency budget": "by the latency budget",
  "not loaded": "as its model did not load", replaced: "as a newer frame came"};

/** @param {number} part @param {number} whole */
const share = (part, whole) => `${(100 * part / whole).toFixed(part && part < whole / 10 ? 1 : 0)}\u00a0%`;

/** How often both disagreed in each part of the run in which something was compared.
 * @param {{shadow: Shadow, moment: number | null}} props moment: where a line is drawn, in ns */
function Rate({shadow: {at_ns, parts}, moment}) {
  const step = at_ns.length > 1 ? at_ns[1] - at_ns[0] : 1;
  const at = moment === null ? null : Math.min(Math.max((moment - at_ns[0]) / step, 0), PARTS);
  return html`<figure class="rate" aria-label="Disagreement over time">
    <div><svg viewBox="0 0 ${PARTS} 100" preserveAspectRatio="none" aria-hidden="true">
      <path class="wires" d="M0,.5 H${PARTS} M0,50 H${PARTS} M0,99.5 H${PARTS}" vector-effect="non-scaling-stroke" />
      ${parts.compared.map((all, part) => all > 0 && html`<g key=${part}><title>${`${count(parts.disagreed[part])} of ${counted(all, "frame")}`}</title>
        <rect class="compared" x=${part + .08} width=".84" y="0" height="100" />
        <rect class="differ" x=${part + .08} width=".84" y=${100 - 100 * parts.disagreed[part] / all} height=${100 * parts.disagreed[part] / all} /></g>`)}
      ${at !== null && html`<path class="at" d="M${at},0 V100" vector-effect="non-scaling-stroke" />`}
    </svg></div>
    <span class="most">100 %</span><span class="least">0 %</span>
    <figcaption><span>${clock(at_ns[0]).slice(0, 8)}</span><span>${clock(at_ns[0] + step * PARTS).slice(0, 8)}</span></figcaption>
  </figure>`;
}

/** Equal ones in a row as one. @param {Both[]} all newest first */
function mergedOf(all) {
  /** @type {{newest: Both, times: number}[]} */ const found = [];
  for (const both of all) {
    const last = found.at(-1);
    if (last && last.newest.said === both.said && last.newest.shadow_said === both.shadow_said) last.times += 1;
    else found.push({newest: both, times: 1});
  }
  return found;
}
