// @ts-check
// What the models have said, newest first, and what went wrong.
import {aheadMs} from "../api.js";
import {html, useEffect, useMemo, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {clock, count, cut, duration, millis, span, speed} from "../words.js";
import {Frame} from "./frame.js";

const SHOWN = 40;  // at first; further ones when they are scrolled to

/** @typedef {import("../known.js").Answers} Answers */
/** @typedef {import("../known.js").Answer} Answer */

/** A colour for each task and camera. @param {{name: string, among: string[]}} props */
export const Chip = ({name, among}) =>
  html`<span class="chip hue${Math.max(0, among.indexOf(name)) % 6}">${name}</span>`;

export function AnswerList() {
  const run = useKnown();
  const [search, setSearch] = useState("");
  const [shown, setShown] = useState(SHOWN);
  const tasks = run.moment === null ? run.showing("answer") : Object.keys(run.then?.answers ?? {});
  const names = tasks.map(task => run.authorOf(task));
  const wanted = search.trim().toLowerCase();
  /** @param {Answers} group */
  const matches = ({newest}) =>
    !wanted || `${newest.response}\n${newest.prompt}\n${newest.task}`.toLowerCase().includes(wanted);
  const all = run.moment === null ? run.answers : run.then ? answersThen(run) : [];
  const found = wanted ? all.filter(matches) : all;
  const total = useMemo(() => run.answers.reduce((sum, group) => sum + group.count, 0), [run.answers[0], run.answers.length]);
  const none = wanted ? "No answer has these words." : run.moment !== null ? run.unseen || "No answer until this moment."
    : tasks.length || !run.report ? "No answer yet." : "No task of this graph shows answers.";
  return html`<section class="answers" aria-label="Answers">
    <h2>Answers <small>${run.moment !== null ? run.thenOf === run.moment ? "of this moment" : "coming …" : total ? count(total) : ""}</small>
      <input type="search" placeholder="Search" aria-label="Search the answers" value=${search}
        onInput=${(/** @type {any} */ event) => { setSearch(event.target.value); setShown(SHOWN); }} /></h2>
    <div class="trouble"><${Alerts} /><${Errors} /></div>
    <div class="list" tabindex="0" role="region" aria-label="Answers, newest first">
      ${!wanted && run.moment === null && run.growing().map(part => html`<article class="answer growing" key=${`growing ${part.task}`}>
        <div class="said">${tasks.length > 1 && html`<${Chip} name=${part.task} among=${names} />`}<p class="response">${part.text}<span class="caret" aria-hidden="true"></span></p></div></article>`)}
      <ol id="answers">
        ${found.slice(0, shown).map((group, at) => html`<li key=${group.key}>
          <${One} group=${group} names=${names} prompt=${group.newest.prompt !== found[at - 1]?.newest.prompt} /></li>`)}
      </ol>
      ${!found.length && html`<p class="empty">${none}</p>`}
      ${shown < found.length && html`<${More} onSeen=${() => setShown(shown + SHOWN)} />`}
    </div>
  </section>`;
}

/** @param {{group: Answers, names: string[], prompt: boolean}} props names: of all who answer */
function One({group, names, prompt}) {
  const run = useKnown();
  const {newest, oldest, count: times} = group;
  const sources = group.frame ? [group.frame] : run.sourcesOf(group.task);
  return html`<article class="answer">
    <${Frame} task=${sources[0]} cycle=${oldest.cycle} />
    <div class="said">
      <div class="meta">
        ${names.length > 1 && html`<${Chip} name=${run.authorOf(group.task)} among=${names} />`}
        ${names.length > 1 && sources.length === 1 && !run.authorOf(group.task).endsWith(`: ${sources[0]}`) && html`<span>${sources[0]}</span>`}
        <time title="when the frame was taken">${clock(newest.timestamp_nanos)}</time>
        <span class="pill ${speed(newest.latency_ms)}" title="how long the answer took">${times > 1 ? `×${count(times)}, ${span(group.least_ms, group.most_ms)}` : millis(newest.latency_ms)}</span>
        ${newest.truncated && html`<span class="pill fair" title="the model had not ended this answer">cut off</span>`}
        ${newest.backend !== run.answers.at(-1)?.newest.backend || run.backends > 1 ? html`<span>${newest.backend}</span>` : null}
      </div>
      <p class="response">${cut(newest.response) || html`<i>an empty answer</i>`}</p>
      ${prompt && html`<p class="prompt">${cut(newest.prompt)}</p>`}
      ${newest.reasoning && html`<details><summary>reasoning</summary><p class="response">${cut(newest.reasoning)}</p></details>`}
    </div>
  </article>`;
}

/** The newest answer of each task at the moment looked at. @param {import("../known.js").Known} run
 * @returns {Answers[]} */
function answersThen({then}) {
  return Object.entries(then?.answers ?? {}).sort(([, a], [, b]) => b.cycle - a.cycle).map(([task, said]) => {
    /** @type {Answer} */ const answer = {task, timestamp_nanos: said.tov_ns ?? said.at_ns, cycle: said.frame?.cycle ?? said.cycle,
      prompt: said.prompt ?? "", response: said.response ?? "", truncated: !!said.truncated, reasoning: said.reasoning ?? "",
      backend: said.backend ?? "", latency_ms: said.latency_ms ?? NaN, tokens: said.tokens ?? 0};
    return {key: `then ${task}`, task, frame: said.frame?.task, newest: answer, oldest: answer, count: 1,
      least_ms: answer.latency_ms, most_ms: answer.latency_ms};
  });
}

/** Calls when it comes into sight. @param {{onSeen: () => void}} props */
function More({onSeen}) {
  const mark = useRef(/** @type {any} */ (null));
  useEffect(() => {
    const seen = new IntersectionObserver(entries => { if (entries.some(entry => entry.isIntersecting)) onSeen(); });
    seen.observe(mark.current);
    return () => seen.disconnect();
  });
  return html`<p class="empty" ref=${mark}>…</p>`;
}

/** The newest alert of each task. */
function Alerts() {
  const run = useKnown();
  const then = run.moment !== null;
  /** @type {Record<string, number>} */ const counts = {};
  for (const {task} of run.alerts) counts[task] = (counts[task] ?? 0) + 1;
  /** @type {import("../known.js").Alert[]} */ const newest = then
    ? Object.entries(run.then?.alerts ?? {}).map(([task, it]) => ({...it, task, timestamp_nanos: it.tov_ns ?? it.at_ns}))
    : run.alerts.filter(({task}, at) => run.alerts.findIndex(other => other.task === task) === at);
  newest.sort((a, b) => b.timestamp_nanos - a.timestamp_nanos);
  return html`<ul class="errors alerts" aria-label=${then ? "Alerts until this moment" : "Alerts"}>
    ${newest.map(({task, timestamp_nanos: ns, text, severity}) => html`<li key=${task} class=${severity}>
      <b>${task}</b> <span class="pill">${severity}</span>${!then && counts[task] > 1 && html` <span class="pill">×${count(counts[task])}</span>`}
      <span class="when">${clock(ns)}</span><p>${cut(text)}</p></li>`)}</ul>`;
}

/** What tasks have raised, one line a task. */
function Errors() {
  const run = useKnown();
  const now = Date.now() + aheadMs;
  if (run.moment !== null) {
    const {then} = run;
    return html`<ul class="errors" aria-label="Errors until this moment">
      ${Object.entries(then?.error_counts ?? {}).filter(([, number]) => number).map(([task, number]) => html`<li key=${task}>
        <b>${task}</b> <span class="pill slow">×${count(number)}</span> <span class="when">until this moment</span>
        ${then?.errors.filter(error => error.task === task).map(({text}) => html`<p>in this cycle: ${cut(text)}</p>`)}</li>`)}</ul>`;
  }
  return html`<ul class="errors" aria-label="Errors">
    ${run.errors.map(({task, raised}) => html`<li key=${task}>
      <b>${task}</b> <span class="pill slow">×${count(raised.count)}</span>
      <span class="when">${ago(now - raised.time_ns / 1e6)}</span>
      <p>${raised.text}</p></li>`)}
  </ul>`;
}
/** @param {number} ms */
const ago = ms => ms < 2000 ? "now" : `${duration(ms / 1000)} ago`;
