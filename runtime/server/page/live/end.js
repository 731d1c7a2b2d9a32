// @ts-check
// What remains to be done after the end of a run.
import {address, get, post, why} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {useKnown} from "../known.js";
import {bytes, count, duration} from "../words.js";

/** Wait until the process that served this page runs the graph again. */
async function back() {
  for (;;) {
    await new Promise(done => setTimeout(done, 300));
    const report = await get("api/v0/report").catch(() => null);
    if (report?.status === "Running") return;
  }
}

/** @param {{say: (text: string, bad?: boolean) => void}} props */
export function EndCard({say}) {
  const run = useKnown();
  const [closed, close] = useState(false);
  const {state, detail} = run.state;
  const ended = ["ended", "gone"].includes(state) && run.recorded === null && run.moment === null;
  useEffect(() => { if (!ended) close(false); }, [ended]);
  const {report, pipeline} = run;
  if (closed || !ended || !report && !pipeline) return null;
  const failed = typeof (report ?? pipeline)?.status === "object";
  const path = report?.log?.path;
  const again = async () => {
    try {
      say((await post("api/v0/pipeline/start", {pipeline_id: (pipeline ?? report)?.id})).message);
      if (!pipeline) {
        await back();
        location.reload();
      }
    } catch (error) {
      say(why(error), true);
    }
  };
  return html`<section class="end ${failed ? "bad" : ""}" aria-labelledby="end-title" id="end">
    <h2 id="end-title">${state === "gone" ? "The server cannot be reached" : failed ? "The run ended with an error" : report ? "The run has ended" : `${pipeline?.id} is not running`}</h2>
    <p class="why">${state === "gone" ? "What this page shows is the last state that it sent." : failed ? detail : report ? `Why: ${report.ended ?? "it ended by itself"}. What this page shows is its last state.` : "Start it to see what it sees."}</p>
    ${report && html`<p>${count(report.cycles)} cycles in ${duration(report.uptime_s)}${report.log ? `, ${count(report.log.messages)} messages, ${bytes(report.log.bytes)}` : ", no log"}</p>`}
    ${path && html`<p>Have it again: <code>flowrun replay ${path}</code></p>`}
    <div class="buttons">
      ${path && state === "ended" && run.runs.length > 0 && html`<a class="button" href=${address(`api/v0/runs/${run.logged}/log.mcap`)} download>Download MCAP</a>`}
      ${(pipeline ? pipeline.status !== "Running" : report?.may_run_again) && html`<button type="button" onClick=${again}>${report ? "Run again" : "Start"}</button>`}
      <button type="button" onClick=${() => close(true)}>Close</button>
    </div>
  </section>`;
}
