// @ts-check
// What remains to be done after the end of a run.
import {address, post, why} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {useKnown} from "../known.js";
import {place} from "../timeline/moments.js";
import {bytes, count, duration, ending} from "../words.js";

/** @param {import("../known.js").Pipeline | null} pipeline */
const errorOf = pipeline => typeof pipeline?.status === "object" ? pipeline.status.Error : "";

/** What has happened, as a title and a sentence.
 * @param {{state: string, detail: string, failed: boolean, waits: boolean, pipeline: import("../known.js").Pipeline | null,
 *   report: import("../known.js").Report | null}} end waits: whether it is about to be started again */
function told({state, detail, failed, waits, pipeline, report}) {
  if (state === "gone") return {title: "The server cannot be reached", story: "What this page shows is the last state that it sent."};
  if (waits) {
    return {title: `${pipeline?.id} starts again in ${Math.ceil(pipeline?.next_start_s ?? 0)} s`,
      story: errorOf(pipeline) || "It has come to its end, and is to be started again whenever it does."};
  }
  if (failed) return {title: "The run ended with an error", story: detail};
  if (report) {
    const why = ending(report.ended ?? "it was stopped, or came to its end");
    return {title: "The run has ended", story: `Why: ${why}. What this page shows is its last state.`};
  }
  return {title: `${pipeline?.id} is not running`, story: "Start it to see what it sees."};
}

/** @param {{say: import("../said.js").Say}} props */
export function EndCard({say}) {
  const run = useKnown();
  const [closed, close] = useState(false);
  const {state, detail, bad: failed = false} = run.state;
  const ended = ["ended", "gone"].includes(state) && run.recorded === null && run.moment === null;
  useEffect(() => { if (!ended) close(false); }, [ended]);
  const {report, pipeline} = run;
  if (closed || !ended || !report && !pipeline) return null;
  const path = report?.log?.path;
  const again = async () => {
    run.asked = "restart";
    try {
      // The page comes again by itself when there is a run to follow.
      say((await post("api/v0/pipeline/start", {pipeline_id: (pipeline ?? report)?.id})).message);
    } catch (error) {
      run.asked = null;
      say(why(error), true);
    }
  };
  const here = state === "ended" && !run.unreachable && run.asked === null;  // and may be asked for something
  const waits = here && pipeline?.phase === "waiting";
  const {title, story} = told({state, detail, failed, waits, pipeline, report});
  return html`<section class="end ${failed ? "bad" : ""}" aria-labelledby="end-title" id="end">
    <h2 id="end-title">${title}</h2>
    <p class="why">${story}</p>
    ${report && html`<p>${count(report.cycles)} cycles in ${duration(report.uptime_s)}${report.log ? `, ${count(report.log.messages)} messages, ${bytes(report.log.bytes)}` : ", no log"}</p>`}
    ${path && html`<p>Have it again: <code>flowrun replay ${path}</code></p>`}
    ${state === "ended" && (run.unreachable || run.asked !== null) && html`<p>${run.asked === "restart" ? "It begins again ..." : "Its server cannot be reached."}</p>`}
    <div class="buttons">
      ${here && path && run.runs.length > 0 && html`<a class="button" href=${address(`${place(run.logged)}/log.mcap`)} download>Download MCAP</a>`}
      ${here && (pipeline ? pipeline.status !== "Running" : report?.may_run_again) && html`<button type="button" onClick=${again}>${waits ? "Start now" : report ? "Run again" : "Start"}</button>`}
      <button type="button" onClick=${() => close(true)}>Close</button>
    </div>
  </section>`;
}
