// @ts-check
// What remains to be done after the end of a run.
import {address, post, why} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {useKnown} from "../known.js";
import {bytes, count, duration} from "../words.js";
import {servedBy} from "./top.js";

/** @param {{say: (text: string, bad?: boolean) => void}} props */
export function EndCard({say}) {
  const run = useKnown();
  const [closed, close] = useState(false);
  const {state, detail} = run.state;
  const ended = ["ended", "gone"].includes(state) && run.recorded === null && run.moment === null;
  useEffect(() => { if (!ended) close(false); }, [ended]);
  if (closed || !ended || !run.report) return null;
  const {report} = run;
  const failed = typeof report.status === "object";
  const path = report.log?.path;
  const served = servedBy(run);
  const again = async () => {
    try {
      say((await post(`${served}api/v0/pipeline/start`, {pipeline_id: report.id})).message);
      location.reload();
    } catch (error) {
      say(why(error), true);
    }
  };
  return html`<section class="end ${failed ? "bad" : ""}" aria-labelledby="end-title" id="end">
    <h2 id="end-title">${state === "gone" ? "The server cannot be reached" : failed ? "The run ended with an error" : "The run has ended"}</h2>
    <p class="why">${state === "gone" ? "What this page shows is the last state that it sent." : failed ? detail : `It ended by ${detail || "itself"}. What this page shows is its last state.`}</p>
    <p>${count(report.cycles)} cycles in ${duration(report.uptime_s)}${report.log ? `, ${count(report.log.messages)} messages, ${bytes(report.log.bytes)}` : ", no log"}</p>
    ${path && html`<p>Have it again: <code>flowrun replay ${path}</code></p>`}
    <div class="buttons">
      ${path && state === "ended" && run.runs.length > 0 && html`<a class="button" href=${address(`api/v0/runs/${run.logged}/log.mcap`)} download>Download MCAP</a>`}
      ${served !== null && html`<button type="button" onClick=${again}>Run again</button>`}
      <button type="button" onClick=${() => close(true)}>Close</button>
    </div>
  </section>`;
}
