// @ts-check
// The page: its parts, and what they show.
import {get, listen, Refused, why} from "./api.js";
import {html, render, useCallback, useEffect, useLayoutEffect} from "./html.js";
import {idOf, run, useKnown} from "./known.js";
import {keepAddress, placeAsked} from "./location.js";
import {useSaid} from "./said.js";
import {AnswerList} from "./live/answers.js";
import {Cameras} from "./live/cameras.js";
import {EndCard} from "./live/end.js";
import {SettingsForm} from "./live/settings.js";
import {Tabs} from "./live/tabs.js";
import {Top} from "./live/top.js";
import {Timeline} from "./timeline/timeline.js";

const RETRY_MS = 2000;
const LOOK_MS = 1000;
const PATIENCE_MS = 1500;
const EVENTS = ["statistics", "ended", "result", "partial", "detections", "alert", "regions", "error", "restart", "source", "dropped",
  "replaced", "set", "injected", "switched", "recording", "log", "lost"];

function App() {
  const known = useKnown();
  const [say, said] = useSaid();
  const look = useCallback((/** @type {number | null} */ cycle) => { run.look(cycle); }, []);
  useEffect(() => {
    begin(text => say(text, true));
    const timer = setInterval(() => { if (!run.over) run.changed(); }, LOOK_MS);  // what was heard grows older
    return () => clearInterval(timer);
  }, []);
  const {state} = known.state;
  useLayoutEffect(() => { document.body.dataset.state = state; }, [state]);
  return html`
    <${Top} say=${say} />
    <main>
      <div class="centre"><${Cameras} /><${EndCard} say=${say} /><${Tabs} /></div>
      <div class="right"><${SettingsForm} say=${say} /><${AnswerList} /></div>
    </main>
    ${known.logs && html`<${Timeline} run=${known.logged} moment=${known.moment} onMoment=${look} />`}
    ${said}`;
}

/** Find out what the server has, and follow it. @param {(text: string) => void} complain */
async function begin(complain) {
  try {
    run.pipelines = await get("api/v0/pipeline/list");
  } catch {
    run.unreachable = true;
    run.connection = "lost";
    run.changed();
    setTimeout(() => begin(complain), RETRY_MS);
    return;
  }
  run.connection = "opening";
  await run.loadRuns();
  const asked = placeAsked();
  if (!run.pipelines.length) {
    const chosen = asked.run ?? run.runs[0]?.id;
    if (!chosen) run.unopened = "This server has no run to show.";
    else await run.open(chosen, asked).catch(error => { run.unopened = why(error); });
  } else if (asked.run !== null || asked.cycle !== null) {
    run.live = await get("api/v0/report").then(idOf, () => null);
    await goTo(asked).catch(error => complain(why(error)));
  }
  run.listeners.add(keepAddress(() => run.unopened ? placeAsked() : run.place, async place => {
    if (run.recorded !== null && isOfLive(place)) {
      location.reload();  // as if the page had just been opened
      await new Promise(() => {});
    }
    await goTo(place).catch(error => complain(why(error)));
  }));
  if (run.served) await followPipeline(complain);
  else if (run.pipelines.length) follow(complain);
  run.changed();
}

/** Whether a place is in the live run. @param {import("./location.js").Place} place */
const isOfLive = place => place.run === null ? run.pipelines.length > 0 : place.run === run.live;

/** Show a place. @param {import("./location.js").Place} place not of the live run while a recorded one is shown */
async function goTo(place) {
  if (!isOfLive(place) && place.run !== null && place.run !== run.recorded) await run.open(place.run, place);
  else await run.look(place.cycle);
}

/** Follow the run of a pipeline that is started and stopped by its server, whenever it runs.
 * @param {(text: string) => void} complain */
async function followPipeline(complain) {
  /** @type {number | null} */ let followed = null;
  let isRead = false;  // how far the run came that was followed
  for (;;) {
    const {phase, pid = null} = run.pipeline ?? {};
    if (followed === null && phase === "running") {
      followed = pid;
      follow(complain);
    } else if (followed !== null && pid !== null && pid !== followed && run.connection !== "open") {
      location.reload();  // it has been started again
      return;
    }
    await new Promise(done => setTimeout(done, LOOK_MS));
    if (run.connection !== "open" && !document.hidden) await lookAgain(async () => {
      run.pipelines = await get("api/v0/pipeline/list");
      const phase = run.pipeline?.phase ?? "";
      if (["stopped", "failed"].includes(phase)) run.asked = null;
      if (!run.over && run.report?.log && ["stopped", "failed", "waiting"].includes(phase)) isRead ||= await run.readExtent();
    });
  }
}

/** See whether the server of a run that has ended is still there, and whether somebody runs the graph again. */
async function watchEnd() {
  for (;;) {
    await new Promise(done => setTimeout(done, LOOK_MS));
    if (run.recorded !== null || document.hidden) continue;
    await lookAgain(async () => {
      const report = await get("api/v0/report");
      if (report.status === "Running" || report.log?.path !== run.report?.log?.path) location.reload();
      run.report = report;
    });
  }
}

/** @param {() => Promise<void>} look */
async function lookAgain(look) {
  try {
    await Promise.race([look(), new Promise((_, fail) => setTimeout(() => fail(new Error("no answer")), PATIENCE_MS))]);
    run.unreachable = false;
  } catch (error) {
    run.unreachable = !(error instanceof Refused);
  }
  run.changed();
}

/** Follow the live run. @param {(text: string) => void} complain */
function follow(complain) {
  const isUnseen = () => run.recorded !== null;  // a recorded run is shown in its place
  listen(EVENTS, {
    event: (name, data) => {
      if (isUnseen()) return;
      run.take(name, data);
      if (run.replaced) location.reload();
      if (name === "ended" && !run.served) watchEnd();
    },
    opened: async () => {
      run.unreachable = false;
      run.changed();
      if (isUnseen()) return;
      run.connection = "open";
      run.asked = null;  // it has been done
      try {
        const [report, graph] = await Promise.all([get("api/v0/report"), get("api/v0/pipeline/config")]);
        if (isUnseen()) return;
        run.graph = graph;
        if (!run.over) run.takeReport(report);
        if (run.replaced) { location.reload(); return; }
        await run.loadRuns();
      } catch (error) {
        complain(why(error));
      }
      run.changed();
    },
    lost: () => {
      run.left("lost");
      if (!run.served) lookAgain(async () => { await get("api/v0/pipeline/list"); });
    },
    left: () => run.left("left"),
  });
}

document.body.replaceChildren();
render(html`<${App} />`, document.body);
