// @ts-check
// What the page knows of the run. Events change it here and nowhere else; components read it with
// `useKnown`.
import {aheadMs, get, why} from "./api.js";
import {useEffect, useState} from "./html.js";
import {troublesOf} from "./links.js";
import {ending} from "./words.js";
import {loadMoment, place} from "./timeline/moments.js";

/** @typedef {{count: number, text: string, cycle: number, time_ns: number}} Raised */
/** @typedef {{state: "unused" | "loading" | "ok" | "failing", for_s: number, seen_s: number, detail: string,
 *   used: boolean, servers?: Record<string, ServerHealth>}} Health */
/** @typedef {{state: "unused" | "loading" | "ok" | "failing", for_s: number, seen_s: number, detail: string,
 *   outstanding: number, answers: number, failures: number}} ServerHealth */
/** @typedef {{peer: string, direction: "in" | "out", state: "connecting" | "connected" | "lost" | "refused" | "ended",
 *   cursor: number, newest: number, lag_cycles: number, waiting: number, gaps: number, skipped: number, damaged: number,
 *   clock_offset_ms: number | null, refused: string, reconnects: number}} Link */
/** @typedef {{part: string, state: "unknown" | "starting" | "running" | "stuck" | "ended" | "failed" | "gone", cycles: number,
 *   cycle_rate_hz: number, uptime_s: number, errors: number, error: string, dropped: number, heard_s: number | null,
 *   restarts: number, run: string, page: string | null, links: Link[]}} Part */
/** @typedef {{of: string, compared: number, disagreed: number,
 *   last: {frame_cycle: number, said: string, shadow_said: string} | null}} Shadow */
/** @typedef {{type: string, p50_us: number | null, p99_us: number | null, background: boolean,
 *   dropped: number, dropped_by: Record<string, number>, late_s: number | null, state: string | null,
 *   code: string, raised?: Raised | null, rate_hz?: number | null, backends?: Record<string, Health>,
 *   shadow?: Shadow | null}} TaskReport */
/** @typedef {Record<string, Record<string, any>>} Settings task -> live key -> the value in force */
/** @typedef {{id: string, status: "Running" | "Stopped" | {Error: string}, cycles: number,
 *   cycle_rate_hz: number, uptime_s: number, starting: string | null,
 *   progress: {what: string, fraction: number | null} | null,
 *   log: {path: string, bytes: number, messages: number} | null, tasks: Record<string, TaskReport>,
 *   shows: Record<string, string>, live: Record<string, string[]>, settings?: Settings, ended?: string | null,
 *   may_run_again?: boolean, part?: string | null, links?: Link[], fleet?: Part[]}} Report */
/** @typedef {{id: string, type: string, background?: boolean, config?: Record<string, any>}} GraphTask */
/** @typedef {{tasks: GraphTask[], cnx: {src: string, dst: string, msg?: string}[]}} Graph */
/** @typedef {{task: string, timestamp_nanos: number, cycle: number, prompt: string, response: string,
 *   truncated: boolean, reasoning: string, backend: string, latency_ms: number, tokens: number}} Answer */
/** Equal answers of a task to one prompt, one after the other.
 * frame: the task whose picture it is about, where that is known.
 * @typedef {{key: string, task: string, frame?: string, newest: Answer, oldest: Answer, count: number, least_ms: number,
 *   most_ms: number}} Answers */
/** @typedef {{task: string, timestamp_nanos: number, cycle: number, prompt: string, text: string,
 *   since: number}} Partial */
/** @typedef {{key: number, timestamp_nanos: number, level: string, task: string, message: string,
 *   fields: Record<string, any>, count: number}} Line */
/** @typedef {{x: number, y: number, width: number, height: number, confidence: number | null, class: string,
 *   class_id: number, tracker_id: number | null}} Box */
/** @typedef {{task: string, port?: string, timestamp_nanos: number, cycle: number, width: number, height: number,
 *   detections: Box[]}} Detections */
/** What zones and lines have counted. @typedef {{task: string, timestamp_nanos: number, cycle: number, width: number,
 *   height: number, zones: {name: string, polygon: [number, number][], count: number, total: number}[],
 *   lines: {name: string, line: [number, number, number, number], in: number, out: number}[]}} Regions */
/** @typedef {{at: number, rate: number, p50: Record<string, number>, answers: Record<string, number>}} Sample */
/** @typedef {{id: string, graph: string, started_ns: number | null, ended_ns: number | null, state: string,
 *   cycles: number, why: string | null}} RunSummary */
/** @typedef {{id: string, from_ns: number | null, to_ns: number | null, state: string, why: string | null}} PartRun */
/** What `GET .../fleet` gives. @typedef {{from_ns: number, to_ns: number, parts: RecordedPart[], links: RecordedLink[]}} RecordedFleet
 * @typedef {{part: string, ahead_ns: number | null, restarts: number, cycles: number, errors: number, dropped: number, runs: PartRun[]}} RecordedPart
 * @typedef {{sender: string, receiver: string, cycles: number, skipped: number, left: number | null, reconnects: number | null,
 *   clock_offset_ms: number | null, delay_ms: {p50: number, p99: number, most: number} | null, delays_ms: (number | null)[],
 *   gaps: {at_ns: number, cycle: number, text: string}[]}} RecordedLink */
/** @typedef {"stopped" | "starting" | "running" | "stopping" | "failed" | "waiting"} Phase */
/** @typedef {{id: string, status: "Running" | "Stopped" | {Error: string}, phase?: Phase, pid?: number | null,
 *   restart?: string, restarts?: number, next_start_s?: number | null, parts?: Record<string, string>}} Pipeline */
/** What `GET .../moment` gives of an answer. @typedef {{cycle: number, at_ns: number, tov_ns: number | null,
 *   prompt?: string, response?: string, truncated?: boolean, reasoning?: string, backend?: string,
 *   latency_ms?: number, tokens?: number, frame: {task: string, cycle: number, url: string} | null}} MomentAnswer */
/** @typedef {{task: string, timestamp_nanos: number, cycle: number, text: string, severity: string}} Alert */
/** What `GET .../moment` gives. @typedef {{cycle: number, at_ns: number, answers: Record<string, MomentAnswer>,
 *   alerts: Record<string, any>, detections: Record<string, any>,
 *   regions: Record<string, any>, settings: Settings, sources: Record<string, any>,
 *   errors: {task: string, text: string}[], error_counts: Record<string, number>, dropped: Record<string, number>,
 *   shadows: Record<string, {of: string, compared: number, disagreed: number}>,
 *   steps_ms: Record<string, number>, rates_hz: Record<string, number>,
 *   images: Record<string, {cycle: number, at_ns: number, url: string, whole: string, width: number, height: number,
 *     pixels: [number, number], packets: {key: number, number: number} | null, damaged: boolean}>}} Moment
 *   url: of a picture as wide as it is shown; whole: of all of it; width, height: as it is shown; pixels: how many it has;
 *   packets: those that give it; damaged: whether some that it may need are missing or damaged */
/** @typedef {"opening" | "open" | "lost" | "left" | "over"} Connection */
/** @typedef {"loading" | "running" | "degraded" | "paused" | "stuck" | "stopping" | "ended" | "gone"} State */
/** bad: whether an error has ended it. @typedef {{state: State, text: string, detail: string, bad?: boolean}} Stated */

const ANSWERS_KEPT = 5000;
const ALERTS_KEPT = 200;
const LINES_KEPT = 2000;
const RECENT_KEPT = 500;
const SAMPLES_KEPT = 900;  // a quarter of an hour
const SLOW_ANSWER_MS = 300;
const SILENT_S = 8;        // a server that says nothing for this long may be stopped, or cut off
const LATE_S = 5;          // a report may come after one that is newer by no more
const ILL_MS = 30_000;     // a run counts as degraded for this long after an error

export class Known {
  constructor() {
    /** @type {Connection} */ this.connection = "opening";
    /** Why a recorded run ended. @type {string | null} */ this.why = null;
    /** Why there is no run to look at. */ this.unopened = "";
    /** Whether the server has come back with another run: what is known is of the one before. */ this.replaced = false;
    /** @type {Report | null} */ this.report = null;
    /** @type {Graph | null} */ this.graph = null;
    /** Newest first. @type {Answers[]} */ this.answers = [];
    /** @type {Record<string, Partial>} */ this.partial = {};
    /** Newest first. @type {Alert[]} */ this.alerts = [];
    /** Newest first. @type {Line[]} */ this.lines = [];
    /** By task, the newest. @type {Record<string, Detections>} */ this.detections = {};
    /** By task, the newest. @type {Record<string, Regions>} */ this.regions = {};
    /** By task and class, how often it was seen. @type {Record<string, Record<string, number>>} */ this.seen = {};
    /** @type {Settings} */ this.settings = {};
    /** By task, newest first. @type {Record<string, string[]>} */ this.prompts = {};
    /** @type {Sample[]} */ this.samples = [];
    /** The cycle at which the user looks; null: what happens now. @type {number | null} */ this.moment = null;
    /** What was so then; of the moment before, until it has come. @type {Moment | null} */ this.then = null;
    /** The moment of which that is. @type {number | null} */ this.thenOf = null;
    /** Why that is not known, "" if it is. */ this.unseen = "";
    this.looking = false;
    this.came = {answers: new Recent(), alerts: new Recent(), lines: new Recent()};
    /** @type {Record<string, number>} */ this.latencies = {};
    this.missed = 0;
    /** What was asked of the run here, and is not done yet. @type {"stop" | "restart" | null} */ this.asked = null;
    /** Whether the server did not answer when it was last asked, after its stream of events was lost or at its end;
     * null: it was not asked since. @type {boolean | null} */ this.unreachable = null;
    /** When the last report came, by the page's own clock. */
    this.heardAt = performance.now();
    /** Runs whose logs can be looked at, the newest first. @type {RunSummary[]} */ this.runs = [];
    /** Of the recorded run that is shown; null: the live one. @type {string | null} */ this.recorded = null;
    /** All runs of the fleet that the recorded run is of; null: it is of none. @type {RecordedFleet | null} */ this.fleet = null;
    /** The id of the live run, of which there may be no log. @type {string | null} */ this.live = null;
    /** What the server starts and stops, or the one run that it has; none where it has recorded runs alone.
     * @type {Pipeline[]} */ this.pipelines = [];
    /** @type {Set<() => void>} */ this.listeners = new Set();
    this.due = false;
  }

  /** Something has changed: draw the page again, once a frame at most. */
  changed() {
    if (this.due) return;
    this.due = true;
    const call = () => { this.due = false; for (const listener of this.listeners) listener(); };
    document.hidden ? setTimeout(call, 100) : requestAnimationFrame(call);
  }

  // -- what comes ----------------------------------------------------------------------------------

  /** @param {string} name of an event @param {any} data */
  take(name, data) {
    const taken = {
      statistics: () => this.takeReport(data),
      ended: () => { this.takeReport(data); this.left("over"); },
      result: () => this.takeAnswer(data),
      partial: () => this.takePartial(data),
      detections: () => this.takeDetections(data),
      alert: () => this.takeAlert(data),
      regions: () => { this.regions[data.task] = data; },
      set: () => this.takeSettings({[data.task]: data.values}),
      log: () => this.takeLine(data),
      lost: () => { this.missed += data.count; },
    }[name];
    taken?.();
    this.changed();
  }

  /** The stream of events is no more. @param {Connection} how */
  left(how) {
    this.connection = how;
    this.partial = {};
    this.asked = null;
    if (how === "lost") this.unreachable = null;
    this.changed();
  }

  /** @param {Report} report */
  takeReport(report) {
    this.replaced ||= this.report !== null && isOfAnotherRun(this.report, report);
    this.report = report;
    this.live = idOf(report);
    this.heardAt = performance.now();
    this.takeSettings(report.settings ?? {});
    /** @type {Record<string, number>} */ const p50 = {};
    for (const [id, task] of Object.entries(report.tasks ?? {})) if (task.p50_us !== null) p50[id] = task.p50_us;
    this.samples.push({at: Date.now() / 1000, rate: report.cycle_rate_hz, p50, answers: this.latencies});
    this.latencies = {};
    if (this.samples.length > SAMPLES_KEPT) this.samples.shift();
  }

  /** @param {Settings} settings */
  takeSettings(settings) {
    for (const [task, values] of Object.entries(settings)) {
      this.settings[task] = {...this.settings[task], ...values};
      if (typeof values.prompt === "string") this.notePrompt(task, values.prompt);
    }
  }

  /** @param {string} task @param {string} prompt */
  notePrompt(task, prompt) {
    const had = this.prompts[task] ?? [];
    if (had[0] !== prompt) this.prompts[task] = [prompt, ...had.filter(old => old !== prompt)].slice(0, 20);
  }

  /** @param {Answer} answer */
  takeAnswer(answer) {
    const above = this.above(answer.task);
    for (const [task, part] of Object.entries(this.partial))
      if (above.has(task) && part.cycle <= answer.cycle) delete this.partial[task];
    const key = `${answer.task} ${answer.cycle} ${answer.timestamp_nanos}`;
    if (this.came.answers.again(key)) return;  // a stream that is opened again begins with the newest answer
    this.latencies[answer.task] = answer.latency_ms;
    const at = this.answers.findIndex(group => group.task === answer.task);
    const last = this.answers[at];
    if (last && last.newest.response === answer.response && last.newest.prompt === answer.prompt
        && last.newest.backend === answer.backend) {
      this.answers.splice(at, 1);
      this.answers.unshift({...last, newest: answer, count: last.count + 1,
        least_ms: Math.min(last.least_ms, answer.latency_ms), most_ms: Math.max(last.most_ms, answer.latency_ms)});
      return;
    }
    this.answers.unshift({key, task: answer.task, newest: answer, oldest: answer, count: 1,
      least_ms: answer.latency_ms, most_ms: answer.latency_ms});
    if (this.answers.length > ANSWERS_KEPT) this.answers.pop();
  }

  /** @param {Omit<Partial, "since">} part */
  takePartial(part) {
    if (!this.showing("answer").some(sink => this.above(sink).has(part.task))) return;  // no sink shows its answers
    const had = this.partial[part.task];
    this.partial[part.task] = {...part, since: had?.cycle === part.cycle ? had.since : performance.now()};
  }

  /** Answers that are being made, without those that are done so soon that they would only flicker. */
  growing() {
    return Object.values(this.partial).filter(part => performance.now() - part.since > SLOW_ANSWER_MS);
  }

  /** @param {Detections} found */
  takeDetections(found) {
    this.detections[endOf(found)] = found;
    const seen = this.seen[found.task] ??= {};
    for (const box of found.detections) seen[box.class] = (seen[box.class] ?? 0) + 1;
  }

  /** @param {Alert} alert */
  takeAlert(alert) {
    if (this.came.alerts.again(`${alert.task} ${alert.cycle} ${alert.timestamp_nanos}`)) return;  // with the last ones
    this.alerts.unshift(alert);
    if (this.alerts.length > ALERTS_KEPT) this.alerts.pop();
  }

  /** @param {Omit<Line, "key" | "count">} line */
  takeLine(line) {
    // Not by their times: two may have the same, and a clock may be set back.
    if (this.came.lines.again(`${line.timestamp_nanos} ${line.task} ${line.message}`)) return;
    merge(this.lines, line);
    if (this.lines.length > LINES_KEPT) this.lines.pop();
  }

  // -- looking back --------------------------------------------------------------------------------

  /** The pipeline whose page this is, where its server starts and stops it. @returns {Pipeline | null} */
  get pipeline() {
    const name = /\/pipelines\/([^/]+)\/$/.exec(new URL(document.baseURI).pathname)?.[1];
    return this.pipelines.find(({id, pid}) => pid !== undefined && name !== undefined && id === decodeURIComponent(name)) ?? null;
  }
  get served() { return this.pipeline !== null; }

  /** Whether there is a log to look at. */
  get logs() {
    const begun = !!this.report?.cycles || this.answers.length > 0;  // a report may be a second old, and the last one
    return this.runs.length > 0 && begun && !!this.report?.log;
  }

  /** The run whose log is looked at, as the server names it. */
  get logged() {
    if (this.recorded !== null) return this.recorded;
    // The server that had the live run's log has ended with it; that of all pipelines has its folder.
    return this.pipeline && this.connection !== "open" && this.live || "current";
  }

  /** What is shown, as the page's address says it: the live run has an id there where somebody looks back in it. */
  get place() { return {run: this.recorded ?? (this.moment === null ? null : this.live), cycle: this.moment}; }

  /** Look at a cycle, or at what happens now. Of many calls in a row, the last one counts.
   * @param {number | null} cycle */
  async look(cycle) {
    if (cycle === null && this.recorded !== null) return;  // a recorded run has no now
    this.moment = cycle;
    if (cycle === null) this.then = null;
    this.changed();
    if (this.looking) return;
    this.looking = true;
    try {
      let done = "";
      while (this.moment !== null && `${this.logged} ${this.moment}` !== done) {
        const {logged, moment} = this;
        done = `${logged} ${moment}`;
        const [found, unseen] = await loadMoment(logged, moment).then(found => [found, ""], error => [null, why(error)]);
        if (this.moment !== null && this.logged === logged) [this.then, this.thenOf, this.unseen] = [found, moment, unseen];
        this.changed();
      }
    } finally {
      this.looking = false;
      this.changed();
    }
  }

  /** The run has gone without a last report: how far it came is in its log. Returns whether that is known now. */
  async readExtent() {
    const run = await get(place(this.logged)).catch(() => null);
    if (run && this.report) this.report = {...this.report, ...extentOf(run)};
    return !!run;
  }

  async loadRuns() {
    this.runs = await get("api/v0/runs").catch(() => []);
    this.changed();
  }

  /** Show a recorded run at a cycle or a time, or at its last cycle.
   * @param {string} id @param {{cycle?: number | null, at_ns?: number}} [at] */
  async open(id, {cycle = null, at_ns} = {}) {
    const run = await get(place(id));
    this.unopened = "";
    this.recorded = id;
    this.graph = {tasks: run.tasks, cnx: run.connections};
    this.report = {
      id: run.graph || id, status: run.state === "error" ? {Error: run.why} : "Stopped", ...extentOf(run), starting: null, progress: null,
      tasks: Object.fromEntries(run.tasks.map((/** @type {GraphTask} */ {id: task, type, background}) => [task, {
        type, background: !!background, p50_us: null, p99_us: null, dropped: 0, dropped_by: {}, late_s: null, state: null, code: ""}])),
      shows: Object.fromEntries(run.images.map((/** @type {string} */ task) => [task, "picture"])), live: {},
    };
    this.why = run.why;
    this.connection = "over";
    [this.moment, this.then, this.unseen] = [null, null, ""];
    if (!this.fleet?.parts.some(({runs}) => runs.some(it => it.id === id))) this.fleet = null;
    if (run.part && !this.fleet) this.loadFleet(id);
    if (run.last_cycle !== null) await this.look(cycle ?? (at_ns === undefined ? run.last_cycle : await cycleOf(run, at_ns)));
    this.changed();
  }

  /** @param {string} id of one of its runs */
  async loadFleet(id) {
    const found = await get(`${place(id)}/fleet`).catch(() => null);
    if (this.recorded === id) this.fleet = found;
    this.changed();
  }

  // -- what follows from it ------------------------------------------------------------------------

  /** The tasks that have raised errors, those with the newest first.
   * @returns {{task: string, raised: Raised}[]} */
  get errors() {
    return Object.entries(this.report?.tasks ?? {})
      .flatMap(([task, {raised}]) => raised ? [{task, raised}] : [])
      .sort((a, b) => b.raised.time_ns - a.raised.time_ns);
  }

  /** Sources that do not run as they should. @returns {[string, TaskReport][]} */
  get ailing() {
    return Object.entries(this.report?.tasks ?? {})
      .filter(([, task]) => ["connecting", "lost", "error"].includes(task.state ?? ""));
  }

  /** Backends that should answer and do not, and farms of which not all servers do, in words.
   * @returns {string[]} */
  get failing() {
    return Object.entries(this.report?.tasks ?? {}).flatMap(([task, {backends}]) => Object.entries(backends ?? {})
      .filter(([, {used}]) => used)
      .map(([name, {state, servers}]) => [name, state === "failing" ? "fails" : lacking(servers)])
      .filter(([, how]) => how).map(([name, how]) => `${task}: ${name} ${how}`));
  }

  /** @returns {Stated} */
  get state() {
    const report = this.report;
    if (this.recorded !== null) return {state: "ended", text: "Recorded", detail: this.why ?? ""};
    if (this.unopened) return {state: "ended", text: "No run", detail: this.unopened, bad: true};
    if (this.connection === "over" && report) {
      if (typeof report.status === "object") return {state: "ended", text: "Ended", detail: report.status.Error, bad: true};
      if (report.status === "Stopped") return {state: "ended", text: "Ended", detail: ending(report.ended ?? "")};
      return {state: "gone", text: "Server gone", detail: "The server has stopped; the run may go on without it."};
    }
    if (this.pipeline && this.connection !== "open" && !this.unreachable) return stateOf(this.pipeline);
    if (this.connection === "lost" && !this.unreachable)
      return {state: "loading", text: "Connecting", detail: this.unreachable === false ? "The server has no place for another viewer. Trying again …" : ""};
    if (this.connection === "lost") return {state: "gone", text: "Server gone", detail: "It cannot be reached. Trying again …"};
    if (!report) return {state: "loading", text: "Connecting", detail: ""};
    const silent_s = (performance.now() - this.heardAt) / 1000;
    if (this.connection === "open" && silent_s > SILENT_S)
      return {state: "gone", text: "Server silent", detail: `for ${Math.floor(silent_s)} s; it should say something every second`};
    if (this.asked !== null) return {state: "stopping", text: this.asked === "stop" ? "Stopping" : "Restarting", detail: ""};
    const tasks = Object.entries(report.tasks ?? {});
    if (report.starting !== null) {
      const {what, fraction} = report.progress ?? {what: "starting", fraction: null};
      const share = fraction === null ? "" : ` ${Math.floor(fraction * 100)} %`;
      return {state: "loading", text: `Loading${share}`, detail: `${report.starting}: ${what}`};
    }
    const late = tasks.filter(([, task]) => task.late_s !== null).sort((a, b) => Number(b[1].late_s) - Number(a[1].late_s))[0];
    if (late) return {state: "stuck", text: "Stuck", detail: `${late[0]}, for ${Math.floor(Number(late[1].late_s))} s`};
    const sources = tasks.filter(([, task]) => task.state && !["ended", "error"].includes(task.state));
    const held = sources.filter(([, task]) => ["paused", "muted"].includes(task.state ?? ""));
    if (sources.length && held.length === sources.length)
      return {state: "paused", text: held.every(([, task]) => task.state === "muted") ? "Muted" : "Paused", detail: ""};
    const now = Date.now() + aheadMs;
    const recent = this.errors.filter(({raised}) => now - raised.time_ns / 1e6 < ILL_MS);
    const ill = [
      ...recent.map(({task, raised}) => `${task} ×${raised.count}`),
      ...this.failing,
      ...this.ailing.map(([id, task]) => `${id}: ${task.code || task.state}`),
      ...troublesOf(report.fleet ?? []),
    ];
    if (ill.length) return {state: "degraded", text: "Degraded", detail: ill.join(", ")};
    return {state: "running", text: "Running", detail: held.map(([id, task]) => `${id}: ${task.state}`).join(", ")};
  }

  get over() { return this.connection === "over"; }

  /** The tasks that show what is asked for, in the order of the graph. @param {string} kind */
  showing(kind) {
    return Object.entries(this.report?.shows ?? {}).filter(([, shows]) => shows === kind).map(([task]) => task);
  }

  /** The connections into a task, or into that part of it which gives what comes out at one of its ports: a task
   * that looks at several cameras at once has a port for each. @param {string} end `task` or `task.port` */
  into(end) {
    const task = owner(end), port = end.slice(task.length + 1);
    const all = (this.graph?.cnx ?? []).filter(wire => owner(wire.dst) === task);
    const inputs = this.graph?.tasks.find(({id}) => id === task)?.config?.inputs;
    if (!port || !Array.isArray(inputs)) return all;
    const [name] = inputs.filter(input => port.startsWith(`${input}_`)).sort((one, other) => other.length - one.length);
    return name === undefined ? all : all.filter(wire => wire.dst === `${task}.${name}`);
  }

  /** A task and all whose messages it gets, directly or not, the nearest first. @param {string} task */
  above(task) {
    const ends = new Set([task]);
    for (const end of ends) for (const wire of this.into(end)) ends.add(wire.src);
    return new Set([...ends].map(owner));
  }

  /** Where the messages of a task, or of one of its ports, come from in the end; none while the graph is not known.
   * @param {string} task @returns {string[]} */
  sourcesOf(task) {
    if (!this.graph) return [];
    const fed = new Set((this.graph?.cnx ?? []).map(wire => owner(wire.dst)));
    return [...this.above(task)].filter(id => !fed.has(id));
  }

  /** The tasks whose pictures a task has looked at, itself or by those whose messages it gets. @param {string} task */
  picturesOf(task) {
    /** @type {Set<string>} */ const found = new Set();
    const ends = new Set([task]);
    for (const end of ends) {
      for (const wire of this.into(end)) {
        if (wire.msg === "ImageRgb8Msg") found.add(owner(wire.src)); else ends.add(wire.src);
      }
    }
    return found;
  }

  /** How many backends a task of this graph may have. */
  get backends() {
    return Math.max(1, ...(this.graph?.tasks ?? []).map(({config}) => 1 + Object.keys(config?.backends ?? {}).length + Number(!!config?.model)));
  }

  /** Who has made the answers that a sink shows, and about which camera where that is needed to tell them apart.
   * @param {string} sink */
  authorOf(sink) {
    const sinks = this.showing("answer");
    const author = this.makerOf(sink);
    if (!sinks.includes(sink) || author === null) return sink;
    const cameras = this.sourcesOf(sink);
    const isOne = sinks.every(other => other === sink || this.makerOf(other) !== author);
    return isOne || cameras.length !== 1 ? author : `${author}: ${cameras[0]}`;
  }

  /** The one task whose messages a sink gets. @param {string} sink */
  makerOf(sink) {
    const from = (this.graph?.cnx ?? []).filter(wire => owner(wire.dst) === sink).map(wire => owner(wire.src));
    return from.length === 1 ? from[0] : null;
  }
}

/** The id of a run by its report: its log's folder. @param {Report} report */
export const idOf = report => report.log?.path.split("/").filter(Boolean).at(-1) ?? null;

/** How long a recorded run is, as a report says it. @param {any} run as `GET .../runs/ID` gives it */
function extentOf({started_ns, from_ns, ended_ns, to_ns, cycles, path, bytes, outputs}) {
  const [began, ended] = [started_ns ?? from_ns, ended_ns ?? to_ns];
  const uptime_s = began == null || ended == null ? 0 : (ended - began) / 1e9;
  const messages = outputs.reduce((/** @type {number} */ sum, /** @type {any} */ output) => sum + output.messages, 0);
  return {cycles, cycle_rate_hz: uptime_s > 0 ? cycles / uptime_s : 0, uptime_s, log: {path, bytes, messages}};
}

/** The last cycle of a recorded run at a time, or that of its end which is nearer. @param {any} run @param {number} at_ns
 * @returns {Promise<number>} */
async function cycleOf({id, from_ns, to_ns, first_cycle, last_cycle}, at_ns) {
  if (at_ns <= from_ns) return first_cycle;
  return at_ns >= to_ns ? last_cycle : (await get(`${place(id)}/moment`, {at_ns})).cycle;
}

/** What has come: a stream that is opened again begins with what was there before. */
class Recent {
  constructor() { /** In the order in which they came. @type {Set<string>} */ this.keys = new Set(); }

  /** Note what comes; returns whether it was among the last ones already. @param {string} key */
  again(key) {
    if (this.keys.has(key)) return true;
    this.keys.add(key);
    if (this.keys.size > RECENT_KEPT) for (const oldest of this.keys) { this.keys.delete(oldest); break; }
    return false;
  }
}

/** Add a newer line; one that says the same as the last is counted.
 * @param {Line[]} lines newest first @param {Omit<Line, "key" | "count">} line */
export function merge(lines, line) {
  const last = lines[0];
  const repeats = last && last.message === line.message && last.task === line.task && last.level === line.level;
  if (repeats) lines[0] = {...last, ...line, count: last.count + 1};
  else lines.unshift({...line, key: (last?.key ?? 0) + 1, count: 1});
}

/** What a pipeline does whose run cannot be followed. @param {Pipeline} pipeline @returns {Stated} */
export function stateOf({phase, status, next_start_s}) {
  const error = typeof status === "object" ? status.Error : "";
  switch (phase) {
    case "starting": return {state: "loading", text: "Starting", detail: ""};
    case "running": return {state: "loading", text: "Connecting", detail: ""};
    case "stopping": return {state: "stopping", text: "Stopping", detail: ""};
    case "waiting": return {state: "ended", text: "Restarting", bad: !!error,
      detail: [`in ${Math.ceil(next_start_s ?? 0)} s`, error].filter(Boolean).join("; ")};
    case "failed": return {state: "ended", text: "Error", detail: error, bad: true};
    default: return {state: "ended", text: "Stopped", detail: ""};
  }
}

/** Where something was found: the port of a task, or the task. @param {{task: string, port?: string}} found */
export const endOf = ({task, port}) => port ? `${task}.${port}` : task;

/** Whether a report is not of the run that one before it was of. @param {Report} before @param {Report} now */
const isOfAnotherRun = (before, now) =>
  now.uptime_s < before.uptime_s - LATE_S || !!before.log && !!now.log && before.log.path !== now.log.path;

/** The task of one end of a connection, `task` or `task.port`. @param {string} end */
export const owner = end => String(end).split(".")[0];

export const run = new Known();

/** What the page knows; the component is drawn again when that changes. */
export function useKnown() {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw(n => n + 1);
    run.listeners.add(listener);
    return () => { run.listeners.delete(listener); };
  }, []);
  return run;
}

/** How many servers of a farm fail, in words. @param {Record<string, ServerHealth> | undefined} servers */
function lacking(servers) {
  const all = Object.values(servers ?? {});
  const failing = all.filter(({state}) => state === "failing").length;
  return failing ? `lacks ${failing} of ${all.length} servers` : "";
}
