// @ts-check
// The timeline of a run: its lanes, the moment that is shown, and what can be done with it.
import {get, inOrder, why} from "../api.js";
import {html, useCallback, useEffect, useMemo, useRef, useState} from "../html.js";
import {clock, count} from "../words.js";
import {ClipPanel} from "./clip.js";
import {LaneChart} from "./lanes.js";
import {since} from "./painting.js";
import {cycleAt, cycleNear, partAt, timeAt, zoomed} from "./scale.js";
import {loadMoment, place} from "./moments.js";
import {foresee} from "./pictures.js";
import {SPEEDS, usePlayback} from "./play.js";
import {WhatIfPanel} from "./what-if.js";
import {WrongPanel} from "./wrong.js";

const REFRESH_MS = 1000;
const RETRY_MS = 5000;
const REST_MS = 80;
/** How far a page key goes, and how long a range is that nobody marked, in parts of what is seen. */
const PAGE = .1;

/** @param {{run: string, moment: number | null, onMoment: (cycle: number | null) => void}} props
 *   run: an id of `api/v0/runs`. moment: the cycle that the page shows, or null for what is live.
 */
export function Timeline({run, moment, onMoment}) {
  const [lanes, setLanes] = useState(/** @type {import("./scale.js").Lanes | null} */ (null));
  const [whole, setWhole] = useState(/** @type {import("./scale.js").Lanes | null} */ (null));
  const [error, setError] = useState("");
  const [view, setView] = useState(/** @type {import("./scale.js").Span | null} */ (null));
  const [range, setRange] = useState(/** @type {import("./scale.js").Span | null} */ (null));
  const [width, setWidth] = useState(0);
  const [drags, setDrags] = useState(false);  // whether somebody may drag soon: key frames are wanted then
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [panel, setPanel] = useState(/** @type {"what-if" | "wrong" | "clip" | null} */ (null));
  const [info, setInfo] = useState(/** @type {any} */ (null));
  const [labels, setLabels] = useState(/** @type {any[]} */ ([]));
  const [whatIf, setWhatIf] = useState(/** @type {any} */ (null));
  const measured = (/** @type {number} */ wide) => { if (wide) setWidth(wide); };  // 0: of what is taken off the page
  const hovered = useRef(/** @type {number | null} */ (null));
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const now = useRef({moment, view, lanes});
  now.current = {moment, view, lanes};

  // In steps, so that the server counts once for many viewers.
  const bins = Math.max(50, Math.min(1000, 50 * Math.round(width / 150)));

  // -- what happened ---------------------------------------------------------------------------
  useEffect(() => {
    setLanes(null); setWhole(null); setView(null); setRange(null); setInfo(null); setWhatIf(null);
    setPanel(null); setPlaying(false); setError("");
  }, [run]);
  useEffect(() => {
    if (!width) return undefined;
    let timer = 0;
    let over = false;
    async function load() {
      let wait = 0;
      try {
        /** @type {Record<string, number>} */
        const query = view ? {bins, from: view.from, to: view.to} : {bins};
        if (drags) query.keys = 1;
        const found = document.hidden ? null : await get(`${place(run)}/lanes`, query);
        if (over) return;
        if (found) {
          setLanes(found);
          setError("");
          if (!view) setWhole(found);
        }
        wait = !found || found.state === "running" ? REFRESH_MS : 0;
      } catch (failure) {
        if (over) return;
        setError(why(failure));
        wait = RETRY_MS;
      }
      if (wait) timer = setTimeout(load, wait);
    }
    load();
    return () => { over = true; clearTimeout(timer); };
  }, [run, view?.from, view?.to, bins, drags, width > 0]);
  const ordered = useMemo(inOrder, []);
  const readLabels = useCallback(
    () => ordered(get(`${place(run)}/labels`), setLabels, () => setLabels([])), [run]);
  useEffect(() => { readLabels(); }, [readLabels]);

  // -- the moment ------------------------------------------------------------------------------
  useEffect(() => {  // when it rests: while it moves, the page shows what it can
    let over = false;
    const timer = moment === null ? 0 : setTimeout(() => loadMoment(run, moment).then(
      found => { if (!over) { setInfo(found); setError(""); } },
      failure => { if (!over) setError(why(failure)); }), REST_MS);
    return () => { over = true; clearTimeout(timer); };
  }, [run, moment]);
  const isLive = lanes?.state === "running";
  const end = lanes?.last_cycle ?? 0;
  const go = (/** @type {number} */ cycle) => {
    if (!lanes) return;
    onMoment(Math.min(Math.max(cycle, lanes.first_cycle), lanes.last_cycle));
  };
  const step = (/** @type {number} */ by) => {
    setPlaying(false);
    const at = info?.cycle === moment ? info : null;
    const next = by === 1 ? at?.next : by === -1 ? at?.previous : null;
    go(next ?? (moment ?? end) + by);
  };
  const live = () => { setPlaying(false); onMoment(null); };
  usePlayback({
    run, playing, speed, cycle: moment, whole: whole ?? lanes, onMoment,
    onEnd: () => { setPlaying(false); if (isLive) onMoment(null); },
  });
  const play = () => {
    if (!lanes) return;
    if (!playing && (moment === null || moment >= end)) onMoment(lanes.from_cycle);
    setPlaying(!playing);
  };
  useEffect(() => {  // what is played stays in sight
    if (!playing || !view || !lanes || moment === null || moment <= view.to) return;
    const long = view.to - view.from;
    const begin = Math.min(moment, lanes.last_cycle - long);
    if (begin > view.from) setView({from: begin, to: begin + long});
  }, [moment, playing]);

  // -- a part of the run -----------------------------------------------------------------------
  const chosen = () => {
    if (range) return range;
    if (!lanes) return {from: 0, to: 0};
    const long = Math.max(30, Math.round((lanes.to_cycle - lanes.from_cycle) * PAGE));
    const at = moment ?? end;
    return {from: Math.max(lanes.first_cycle, at - long), to: Math.min(end, at + long)};
  };
  const mark = (/** @type {"from" | "to"} */ side) => {
    const at = moment ?? end;
    const other = range ?? {from: at, to: at};
    setRange(side === "from" ? {from: at, to: Math.max(at, other.to)} : {from: Math.min(at, other.from), to: at});
  };
  const zoom = (/** @type {number} */ factor) =>
    lanes && setView(zoomed(lanes, moment ?? end, factor));

  const key = (/** @type {KeyboardEvent} */ event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!lanes || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest("input, textarea, select")) return;
    if (event.key === " " && target.closest("button, a")) return;
    const far = Math.max(1, Math.round((lanes.to_cycle - lanes.from_cycle) * PAGE));
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => step(event.shiftKey ? -10 : -1), ArrowRight: () => step(event.shiftKey ? 10 : 1),
      ArrowDown: () => step(-1), ArrowUp: () => step(1),
      PageUp: () => step(far), PageDown: () => step(-far),
      Home: () => { setPlaying(false); go(lanes.first_cycle); },
      End: () => { if (isLive) live(); else { setPlaying(false); go(end); } },
      " ": play, "+": () => zoom(1 / 2), "=": () => zoom(1 / 2), "-": () => zoom(2), "0": () => setView(null),
      "[": () => mark("from"), "]": () => mark("to"), l: live,
      Escape: () => { if (panel) setPanel(null); else setRange(null); },
    };
    const found = keys[event.key];
    if (!found) return;
    event.preventDefault();
    found();
  };

  const marks = useMemo(() => {
    /** @type {import("./scale.js").Marks[]} */
    const found = [];
    if (labels.length) found.push({kind: "labels", task: "", marks: labels.map(it => it.cycle)});
    if (whatIf) found.push({kind: "what-if", task: `#${whatIf.id}`, marks: whatIf.differs.map((/** @type {any} */ it) => it.cycle)});
    return found;
  }, [labels, whatIf]);
  if (!lanes) {
    return html`<section class="timeline" ref=${root} data-timeline=${error ? "error" : "loading"} aria-label="Timeline">
      <${Measure} onWidth=${measured} />
      <p class="timeline-said">${error ? `No timeline: ${error}` : "Reading the log …"}</p></section>`;
  }
  const shown = moment !== null && info?.cycle === moment ? info : null;
  const ns = shown?.at_ns ?? timeAt(lanes, partAt(lanes, moment ?? end));
  const text = moment === null ? "live"
    : `cycle ${count(moment)} · ${clock(ns)} · ${since((ns - lanes.start_ns) / 1e9, .1)}`;
  const toggle = (/** @type {"what-if" | "wrong" | "clip"} */ name) => () => {
    if (name !== "wrong" && panel !== name && !range) setRange(chosen());  // of a run that goes on it would be another one soon
    setPanel(panel === name ? null : name);
  };
  const missing = [...new Set([...lanes.missing, ...(shown?.missing ?? [])])];
  return html`<section class="timeline" ref=${root} aria-label="Timeline" onKeyDown=${key} data-timeline="ready"
      data-cycle=${moment ?? "live"} data-shown=${shown?.cycle ?? ""} data-playing=${playing} data-state=${lanes.state}>
    <div class="timeline-bar">
      <div class="timeline-buttons">
        <button class="icon" onClick=${() => step(-1)} aria-label="One cycle back" title="One cycle back (←)">‹</button>
        <button class="icon play" onClick=${play} aria-pressed=${playing} aria-label=${playing ? "Pause" : "Play"}
          title="Play or pause (space)">${playing ? "❚❚" : "▶"}</button>
        <button class="icon" onClick=${() => step(1)} aria-label="One cycle forth" title="One cycle forth (→)">›</button>
        <select aria-label="Speed" value=${speed} onChange=${(/** @type {any} */ event) => setSpeed(Number(event.target.value))}>
          ${SPEEDS.map(it => html`<option value=${it} selected=${it === speed}>${it}×</option>`)}</select>
        ${isLive && html`<button class="live" onClick=${live} aria-pressed=${moment === null} title="Back to what is live (L)">● Live</button>`}
      </div>
      <span class="timeline-at" aria-live="off">${text}</span>
      <div class="timeline-buttons timeline-acts">
        ${range && html`<span class="timeline-range">cycles ${count(range.from)}–${count(range.to)}
          <button class="link" onClick=${() => setRange(null)} aria-label="Unmark">✕</button></span>`}
        <button class="icon" onClick=${() => zoom(2)} disabled=${!view} aria-label="Zoom out" title="Zoom out (−)">−</button>
        <button class="icon" onClick=${() => zoom(1 / 2)} aria-label="Zoom in" title="Zoom in (+)">+</button>
        <button onClick=${toggle("what-if")} aria-expanded=${panel === "what-if"}>What if …</button>
        <button onClick=${toggle("wrong")} aria-expanded=${panel === "wrong"} disabled=${moment === null}>Wrong answer</button>
        <button onClick=${toggle("clip")} aria-expanded=${panel === "clip"}>Make it a test</button>
      </div>
    </div>
    <${LaneChart} lanes=${lanes} marks=${marks} cycle=${moment} range=${range} text=${text}
      onMove=${(/** @type {number} */ part, /** @type {boolean} */ rests) => {
        setPlaying(false);
        if (isLive && part >= .998 && !view) onMoment(null);
        else onMoment(rests ? cycleAt(lanes, part) : cycleNear(lanes, part));
      }} onEnter=${() => setDrags(true)} onHover=${(/** @type {number | null} */ cycle) => {
        hovered.current = cycle;
        if (cycle === null || playing) return;
        foresee(run, cycle, () => hovered.current !== cycle).then(is => { if (is && root.current) root.current.dataset.foreseen = String(cycle); });
      }} onRange=${setRange} onView=${setView} onWidth=${measured} />
    ${(missing.length > 0 || error) && html`<p class="timeline-said" role="status" tabindex="0">
      ${[error, ...missing.map(it => `Incomplete: ${it}`)].filter(Boolean).join(" · ")}</p>`}
    ${panel === "what-if" && html`<${WhatIfPanel} run=${run} moment=${shown} range=${chosen()} onRange=${setRange}
      onShow=${setWhatIf} onMoment=${onMoment} cycle=${moment} onClose=${() => setPanel(null)} />`}
    ${panel === "wrong" && html`<${WrongPanel} run=${run} moment=${shown} labels=${labels} onChange=${readLabels}
      onClose=${() => setPanel(null)} />`}
    ${panel === "clip" && html`<${ClipPanel} run=${run} range=${chosen()} onRange=${setRange}
      onClose=${() => setPanel(null)} />`}
  </section>`;
}

/** Tells its width once, before there are lanes to draw. @param {{onWidth: (width: number) => void}} props */
function Measure({onWidth}) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => onWidth(/** @type {HTMLElement} */ (element.current).clientWidth), []);
  return html`<div ref=${element}></div>`;
}
