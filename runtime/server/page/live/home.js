// @ts-check
// The graphs of a server of many: what runs, what may be started.
import {address, get, post, why} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {useKnown} from "../known.js";
import {clock, count} from "../words.js";

const LOOK_MS = 2000;

/** @typedef {import("../known.js").Pipeline} Pipeline */

/** @param {{say: (text: string, bad?: boolean) => void}} props */
export function Home({say}) {
  const run = useKnown();
  const [busy, setBusy] = useState(/** @type {string | null} */ (null));
  const look = async () => {
    try {
      run.pipelines = await get("api/v0/pipeline/list");
      run.connection = "open";
    } catch {
      run.connection = "lost";
    }
    run.changed();
  };
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) look(); }, LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  /** @param {Pipeline} pipeline @param {string} verb */
  const ask = async ({id}, verb) => {
    setBusy(id);
    try {
      say((await post(`api/v0/pipeline/${verb}`, {pipeline_id: id})).message);
    } catch (error) {
      say(why(error), true);
    }
    setBusy(null);
    await look();
  };
  const gone = run.connection === "lost";
  return html`<header class="top"><h1>flowrun</h1>
      <span id="state" class="state ${gone ? "gone" : "running"}" role="status"><b>${gone ? "Server gone" : "Serving"}</b>
        ${gone && html`<span class="detail">It cannot be reached. Trying again …</span>`}</span></header>
    <main class="home">
      <section aria-labelledby="graphs"><h2 id="graphs">Graphs</h2>
        <ul>${run.pipelines.map(pipeline => {
          const {id, status, restart, restarts, next_start_s: next} = pipeline;
          const running = status === "Running", failed = typeof status === "object";
          return html`<li key=${id} data-pipeline=${id}>
            <b>${running ? html`<a href=${address(`pipelines/${encodeURIComponent(id)}/`)}>${id}</a>` : id}</b>
            <span class="pill ${running ? "good" : failed ? "slow" : ""}">${failed ? "Error" : status}</span>
            <small>${[restart && restart !== "never" ? `restarts: ${restart}` : "", restarts ? `started again ×${count(restarts)}` : "",
              next != null ? `starts in ${Math.ceil(next)} s` : ""].filter(Boolean).join(", ")}</small>
            <span class="buttons">
              ${running
                ? html`<button type="button" disabled=${gone || busy === id} onClick=${() => ask(pipeline, "restart")}>Restart</button>
                  <button type="button" disabled=${gone || busy === id} onClick=${() => ask(pipeline, "stop")}>Stop</button>`
                : html`<button type="button" disabled=${gone || busy === id} onClick=${() => ask(pipeline, "start")}>${busy === id ? "Starting …" : "Start"}</button>`}
            </span>
            ${failed && html`<p class="why">${status.Error}</p>`}</li>`;
        })}</ul></section>
      ${run.runs.length > 0 && html`<section aria-labelledby="runs"><h2 id="runs">Recorded runs <small>${count(run.runs.length)}</small></h2>
        <ul>${run.runs.slice(0, 100).map(({id, state, cycles, started_ns: started, why: text}) => html`<li key=${id}>
          <b><a href=${address("", {run: id})}>${id}</a></b> <span class="pill ${state === "error" ? "slow" : ""}">${state}</span>
          <small>${started ? clock(started) : ""}, ${count(cycles)} cycles</small>${text && html`<p class="why">${text}</p>`}</li>`)}</ul></section>`}
    </main>`;
}
