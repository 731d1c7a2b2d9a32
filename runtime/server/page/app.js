// @ts-check
// The page: its parts, and what they show.
import {get, listen, why} from "./api.js";
import {html, render, useCallback, useEffect, useRef, useState} from "./html.js";
import {run, useKnown} from "./known.js";
import {AnswerList} from "./live/answers.js";
import {Cameras} from "./live/cameras.js";
import {EndCard} from "./live/end.js";
import {Home} from "./live/home.js";
import {SettingsForm} from "./live/settings.js";
import {Tabs} from "./live/tabs.js";
import {Top} from "./live/top.js";
import {Timeline} from "./timeline/timeline.js";

const SAID_MS = 6000;
const RETRY_MS = 2000;
const EVENTS = ["statistics", "ended", "result", "partial", "detections", "error", "restart", "source", "dropped",
  "replaced", "set", "switched", "recording", "log", "lost"];

function App() {
  const known = useKnown();
  const [said, setSaid] = useState(/** @type {{text: string, bad: boolean} | null} */ (null));
  const timer = useRef(0);
  const say = (/** @type {string} */ text, bad = false) => {
    clearTimeout(timer.current);
    setSaid({text, bad});
    timer.current = setTimeout(() => setSaid(null), bad ? 3 * SAID_MS : SAID_MS);
  };
  const look = useCallback((/** @type {number | null} */ cycle) => {
    run.look(cycle).catch(error => say(why(error), true));
  }, []);
  useEffect(() => { begin(text => say(text, true)); }, []);
  const {state} = known.state;
  useEffect(() => { document.body.dataset.state = known.serves === "pipelines" ? "running" : state; }, [state, known.serves]);
  return html`
    ${known.serves === "pipelines" ? html`<${Home} say=${say} />` : html`
      <${Top} say=${say} />
      <main>
        <div class="centre"><${Cameras} /><${EndCard} say=${say} /><${Tabs} /></div>
        <div class="right"><${SettingsForm} say=${say} /><${AnswerList} /></div>
      </main>
      ${known.runs.length > 0 && !known.report?.starting && html`<${Timeline} base="" run=${known.logged} moment=${known.moment} onMoment=${look} />`}`}
    <div id="said" role="status" class=${said?.bad ? "bad" : ""}>${said?.text}</div>`;
}

/** Find out what the server has, and follow it. @param {(text: string) => void} complain */
async function begin(complain) {
  const asked = new URLSearchParams(location.search).get("run");
  try {
    run.pipelines = await get("api/v0/pipeline/list");
  } catch (error) {
    run.connection = "lost";
    run.changed();
    setTimeout(() => begin(complain), RETRY_MS);
    return;
  }
  run.connection = "opening";
  if (asked !== null || !run.pipelines.length) {
    run.serves = "recorded";
    await run.loadRuns();
    const id = asked ?? run.runs[0]?.id;
    if (id) await run.open(id).catch(error => complain(why(error)));
    else complain("This server has no run to show.");
  } else if (run.pipelines.some(pipeline => pipeline.pid !== undefined)) {
    run.serves = "pipelines";
    await run.loadRuns();
  } else {
    run.serves = "run";
    follow(complain);
    await run.loadRuns();
    const below = /\/pipelines\/[^/]+\/$/.test(new URL(document.baseURI).pathname);
    run.pipelines = below ? await get("../../api/v0/pipeline/list").catch(() => []) : [];
  }
  run.changed();
}

/** Follow the live run. @param {(text: string) => void} complain */
function follow(complain) {
  listen(EVENTS, {
    event: (name, data) => run.take(name, data),
    opened: async () => {
      run.connection = "open";
      run.changed();
      try {
        const [report, graph] = await Promise.all([get("api/v0/report"), get("api/v0/pipeline/config")]);
        run.graph = graph;
        if (!run.over) run.takeReport(report);
      } catch (error) {
        complain(why(error));
      }
      run.changed();
    },
    lost: () => { run.connection = "lost"; run.changed(); },
    left: () => { run.connection = "left"; run.changed(); },
  });
}

document.body.replaceChildren();
render(html`<${App} />`, document.body);
