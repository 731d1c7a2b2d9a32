// @ts-check
// The page of a run: its parts, and the events that they show.
import {get, listen, why} from "./api.js";
import {html, render, useEffect, useRef, useState} from "./html.js";
import {run} from "./known.js";
import {AnswerList} from "./live/answers.js";
import {Cameras} from "./live/cameras.js";
import {EndCard} from "./live/end.js";
import {SettingsForm} from "./live/settings.js";
import {Tabs} from "./live/tabs.js";
import {Top} from "./live/top.js";

const SAID_MS = 6000;
const EVENTS = ["statistics", "ended", "result", "partial", "detections", "error", "restart", "source", "dropped",
  "replaced", "set", "switched", "recording", "log", "lost"];

function App() {
  const [said, setSaid] = useState(/** @type {{text: string, bad: boolean} | null} */ (null));
  const timer = useRef(0);
  const say = (/** @type {string} */ text, bad = false) => {
    clearTimeout(timer.current);
    setSaid({text, bad});
    timer.current = setTimeout(() => setSaid(null), bad ? 3 * SAID_MS : SAID_MS);
  };
  useEffect(() => connect(text => say(text, true)), []);
  return html`
    <${Top} say=${say} chosen=${null} onRun=${() => {}} />
    <main>
      <div class="centre"><${Cameras} /><${EndCard} /><${Tabs} /></div>
      <div class="right"><${SettingsForm} say=${say} /><${AnswerList} /></div>
    </main>
    <div id="said" role="status" class=${said?.bad ? "bad" : ""}>${said?.text}</div>`;
}

/** Follow the run. @param {(text: string) => void} complain */
function connect(complain) {
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
