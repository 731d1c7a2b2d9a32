// @ts-check
// The pictures, each at its own rate, and what was found in them.
import {address} from "../api.js";
import {html, useEffect, useMemo, useRef, useState} from "../html.js";
import {endOf, owner, useKnown} from "../known.js";
import {millis} from "../words.js";
import {insteadOf, usePast} from "../timeline/pictures.js";
import {drawPicture, Overlay} from "./draw.js";
import {follow, followPackets} from "./stream.js";

/** A channel that shows pictures. from: the task that makes them; plain: whether that is the camera; packets: whether those
 * come as its packets; jpegs: whether they come as JPEGs.
 * @typedef {{id: string, camera: string, from: string | null, name: string, plain: boolean, packets: boolean, jpegs: boolean}} Channel */
/** @typedef {import("../known.js").Known} Known */
/** @typedef {import("../decoding.js").Picture} Picture */
/** @typedef {import("./draw.js").Marks} Marks */

const AT_ONCE = 4;
const FRESH_NS = 1e9;  // boxes of a picture that is older than this are not those of the picture shown

/** All channels that there are: what sinks show, and cameras that no sink shows as they are.
 * @param {Known} run @returns {Channel[]} */
function channelsOf(run) {
  if (!run.graph) return [];  // it says which camera is whose
  if (run.recorded !== null) {  // what is in the log, by the tasks that have made it
    return run.showing("picture").map(id => {
      const [camera] = run.sourcesOf(id);
      return {id, camera, from: id, name: id, plain: id === camera, packets: false, jpegs: true};
    });
  }
  const videos = new Set(run.showing("video"));
  /** @type {Channel[]} */ const channels = [];
  for (const id of run.showing("picture")) {
    const from = run.graph.cnx.filter(wire => owner(wire.dst) === id).map(wire => owner(wire.src));
    const camera = run.sourcesOf(id)[0];
    const plain = from.length === 1 && from[0] === camera;
    const packets = plain && videos.has(camera);
    const known = channels.some(other => other.plain && other.camera === camera);
    if (packets && known) continue;  // it would show the same
    channels.push({id, camera, from: from.length === 1 ? from[0] : null, name: plain && !known ? camera : id, plain, packets, jpegs: true});
  }
  for (const id of videos)
    if (!channels.some(other => other.plain && other.camera === id))
      channels.push({id, camera: id, from: id, name: id, plain: true, packets: true, jpegs: false});
  return channels;
}

export function Cameras() {
  const run = useKnown();
  const channels = useMemo(() => channelsOf(run), [run.graph, JSON.stringify(run.report?.shows)]);
  const [chosen, choose] = useState(/** @type {string[] | null} */ (null));
  const [alone, setAlone] = useState(/** @type {string | null} */ (null));
  const [marks, setMarks] = useState({boxes: true, tracks: true, zones: true});
  const ids = channels.map(({id}) => id);
  const first = channels.filter(channel => channel.jpegs || !channels.some(other => other.jpegs && other.camera === channel.camera));
  const shown = (chosen ?? first.slice(0, AT_ONCE).map(({id}) => id)).filter(id => ids.includes(id));
  const drawn = channels.filter(({id}) => alone && ids.includes(alone) ? id === alone : shown.includes(id));
  const live = run.connection === "open" && !run.over;
  const back = run.moment !== null;
  /** @type {(keyof Marks)[]} */ const kinds = [];
  if (Object.keys(back ? run.then?.detections ?? {} : run.detections).length) kinds.push("boxes");
  if (!back && Object.keys(run.detections).length) kinds.push("tracks");
  if (Object.keys(back ? run.then?.regions ?? {} : run.regions).length) kinds.push("zones");
  /** @param {string} id */
  const toggle = id => choose(now => {
    const before = now ?? shown;
    return before.includes(id) ? before.filter(other => other !== id) : [...before, id];
  });
  const isEmpty = run.recorded !== null && run.report?.cycles === 0;
  return html`<section class="cameras" aria-label="Pictures">
    ${isEmpty ? html`<p class="empty">The run has no cycle: there is nothing to look at.</p>` : drawn.length
      ? html`<div class="grid of${Math.min(9, drawn.length)}">${drawn.map(channel => html`<${Screen} key=${channel.id} channel=${channel}
          live=${live} marks=${marks} several=${drawn.length > 1} alone=${alone !== null} onAlone=${() => { if (alone || drawn.length > 1) setAlone(alone ? null : channel.id); }} />`)}</div>`
      : html`<p class="empty">${run.unopened ? run.unopened : run.state.state === "ended" && !run.report ? "Nothing runs." : !run.report || !run.graph ? "Waiting for the run …" : channels.length ? "No picture is chosen." : "No task of this graph shows pictures."}</p>`}
    ${(channels.length > 1 || kinds.length > 0) && html`<div class="chips">
      ${channels.length > 1 && html`<span role="group" class="chips" aria-label="Which pictures">${channels.map(({id, name}) => html`<button
        type="button" class="preset" key=${id} aria-pressed=${shown.includes(id)} onClick=${() => toggle(id)}>${name}</button>`)}</span>`}
      ${kinds.length > 0 && html`<span role="group" class="chips end-of-line" aria-label="What is drawn">
        ${kinds.map(what => html`<button type="button" class="preset" key=${what}
          aria-pressed=${marks[what]} onClick=${() => setMarks({...marks, [what]: !marks[what]})}>${what}</button>`)}</span>`}
    </div>`}
  </section>`;
}

const DAMAGED = "packets of this picture, or before it, are missing or damaged: it shows what the run made of the others";

/** @param {{channel: Channel, live: boolean, several: boolean, alone: boolean, marks: Marks, onAlone: () => void}} props */
function Screen({channel, live, several, alone, marks, onAlone}) {
  const run = useKnown();
  const images = run.then?.images ?? {};
  const task = [channel.id, channel.from].find(id => id !== null && images[id]) ?? channel.camera;
  const then = run.moment === null ? null : images[task] ?? null;
  const back = run.moment !== null;
  const {canvas, newest, note, form, image, why, gap} = useStream(channel, live && run.moment === null);
  const past = usePast(run.logged, task, then);
  const exact = past.shown?.exact && past.shown.cycle === then?.cycle;
  // The log may lack what the channel shows, such as a picture with boxes in it: then it is the camera's.
  const seen = then ? {...channel, from: task, plain: task === channel.camera} : channel;
  const overlay = useOverlay(run, seen, canvas, newest, exact ? then : null, marks);
  const waits = run.moment === null && !newest && form !== "img";
  const behind = behindOf(run, channel, newest);
  const boxes = then ? detectionsThen(run).filter(one => isSeenIn(run, seen, sizeOf(then), one)) : [];
  const early = Math.max(0, ...boxes.map(({timestamp_nanos: at}) => (then?.at_ns ?? 0) - at)) / 1e6;
  return html`<figure class="screen ${live || then ? "" : "over"}" data-form=${form} data-gap=${gap ? "yes" : null} data-shown=${newest ? "yes" : null}
      data-cycle=${(back ? past.shown?.cycle : newest?.cycle) ?? ""} data-moment=${back ? run.then?.cycle ?? "" : null}
      data-past=${!then ? null : exact ? "exact" : past.error ? "none" : "coming"}>
    <canvas class="picture" ref=${canvas} role="img" aria-label=${`live picture of ${channel.name}`} onDblClick=${onAlone}
      hidden=${back || form === "img"}></canvas>
    <canvas class="marks" ref=${overlay} aria-hidden="true" hidden=${back ? !exact : form === "img" || !newest}></canvas>
    ${form === "img" && !back && html`<img ref=${image} alt=${`live picture of ${channel.name}`} onDblClick=${onAlone} />`}
    <canvas class="past" ref=${past.canvas} role="img" aria-label=${`picture of ${channel.name} in cycle ${past.shown?.cycle ?? then?.cycle}`}
      onDblClick=${onAlone} hidden=${!back || !past.shown || !!past.error}></canvas>
    ${back ? (!then || past.error || !past.shown) && html`<span class="wait">${run.unseen || past.error || (!then && run.then ? "no picture until this moment" : "…")}</span>`
      : note ? html`<span class="wait">${note}</span>` : !live && run.moment === null ? html`<span class="wait">not live</span>`
      : waits ? html`<span class="wait">waiting for a ${gap ? "key frame" : "picture"} …</span>` : null}
    <figcaption><b title=${channel.name}>${channel.name}</b>
      ${behind !== null && live && run.moment === null && html`<span class="behind">answer is ${millis(behind)} behind</span>`}
      ${then && past.shown && !past.error && html`<span class="behind">${exact ? "exact" : insteadOf(past.shown, then)}</span>`}
      ${exact && early > 0 && marks.boxes && html`<span class="behind">${early * 1e6 < FRESH_NS ? `boxes are of ${millis(early)} before` : "no boxes of this picture"}</span>`}
      ${then?.damaged && html`<span class="form" title=${DAMAGED}>damaged</span>`}
      ${past.form && html`<span class="form" title=${past.form}>as JPEGs: ${past.form}</span>`}
      ${live && !back && channel.packets && why && form !== "none" && html`<span class="form" title=${why}>as JPEGs: ${why}</span>`}
      ${live && !back && gap && html`<span class="form" title=${gap}>${channel.jpegs ? "as JPEGs" : "stands"} until the next key frame: ${gap}</span>`}
      <span class="tools">
        ${back ? then && html`<a class="button" href=${address(then.whole)} download=${`${channel.name}-cycle-${then.cycle}.jpg`}>Snapshot</a>`
          : html`<button type="button" onClick=${() => snapshot(channel.name, canvas.current, newest, image.current)} disabled=${!newest && form !== "img"}>Snapshot</button>`}
        ${(several || alone) && html`<button type="button" aria-pressed=${alone} onClick=${onAlone}>${alone ? "All" : "Alone"}</button>`}
      </span></figcaption>
  </figure>`;
}

/** How far the newest answer about this camera is behind the picture shown, in milliseconds.
 * @param {Known} run @param {Channel} channel @param {Picture | null} newest */
function behindOf(run, channel, newest) {
  if (!newest || newest.tov_ns === null) return null;
  const group = run.answers.find(({task}) => run.sourcesOf(task).includes(channel.camera));
  return group ? Math.max(0, (newest.tov_ns - group.newest.timestamp_nanos) / 1e6) : null;
}

/** The stream of a channel, drawn onto a canvas in the best form that the browser and the server have:
 * packets, JPEGs over a WebSocket, or an image that the server replaces. `why` says why it is not the first one, and
 * `gap` why packets give no pictures until the next key frame.
 * @param {Channel} channel @param {boolean} live */
function useStream(channel, live) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const image = useRef(/** @type {HTMLImageElement | null} */ (null));
  const [form, setForm] = useState(/** @type {"packets" | "jpeg" | "img" | "none"} */ (channel.packets ? "packets" : "jpeg"));
  const [note, setNote] = useState("");
  const [why, setWhy] = useState("");
  const [gap, setGap] = useState("");
  const [newest, setNewest] = useState(/** @type {Picture | null} */ (null));
  useEffect(() => {
    if (!live || form === "none" || form === "img") return;
    /** @type {Picture | null} */ let waiting = null;
    let due = 0;
    const draw = () => {
      due = 0;
      if (waiting && canvas.current) {
        drawPicture(canvas.current, waiting);
        setNewest({...waiting, image: canvas.current});
      }
      waiting?.image.close?.();
      waiting = null;
    };
    const on = {
      picture: (/** @type {Picture} */ picture) => {
        waiting?.image.close?.();
        waiting = picture;
        due ||= requestAnimationFrame(draw);
        setNote("");
      },
      ended: () => {},
      waits: setNote,
      gap: setGap,
      whole: () => setGap(""),
      failed: (/** @type {string} */ reason) => {
        const next = form === "packets" && channel.jpegs ? "jpeg" : channel.jpegs ? "img" : "none";
        if (next === "none") setNote(reason);
        setWhy(reason.replace(/: ask for JPEGs.*/, ""));
        setGap("");
        setForm(next);
      },
    };
    const stop = form === "packets" ? followPackets(channel.id, channel.jpegs, on) : follow(channel.id, form, on);
    return () => { stop(); setGap(""); cancelAnimationFrame(due); waiting?.image.close?.(); };
  }, [live, form, channel.id]);
  useEffect(() => {
    const shown = image.current;
    if (!live || form !== "img" || !shown) return;
    shown.src = address(`api/v0/streaming/video/${encodeURIComponent(channel.id)}`, {since: Date.now()});
    return () => shown.removeAttribute("src");
  }, [live, form, channel.id]);
  return {canvas, image, newest, note, form, why, gap};
}

/** A canvas over the picture with what was found in it.
 * @param {Known} run @param {Channel} channel @param {{current: HTMLCanvasElement | null}} picture
 * @param {Picture | null} newest @param {import("../timeline/pictures.js").Place | null} then @param {Marks} marks */
function useOverlay(run, channel, picture, newest, then, marks) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const overlay = useMemo(() => new Overlay(), []);
  const size = then ? sizeOf(then) : newest;
  const found = lastOf(run, (then ? detectionsThen(run) : Object.values(run.detections)).filter(one => isSeenIn(run, channel, size, one)));
  const regions = (then ? regionsThen(run) : Object.values(run.regions)).filter(one => isSeenIn(run, channel, size, one));
  useEffect(() => {
    const [under, over] = [then ?? picture.current, canvas.current];
    if (!under || !over) return;
    if (then) {
      Object.assign(over, {width: then.width, height: then.height});
      overlay.draw(over, found.filter(({timestamp_nanos: at}) => then.at_ns - at < FRESH_NS), {...marks, tracks: false}, regions);
      return;
    }
    if (!newest) return;
    if (over.width !== under.width || over.height !== under.height) { over.width = under.width; over.height = under.height; }
    for (const detections of found) overlay.note(detections);
    const fresh = found.filter(({timestamp_nanos: at}) => newest.tov_ns === null || Math.abs(newest.tov_ns - at) < FRESH_NS);
    overlay.draw(over, fresh, marks, regions);
  }, [newest, then, marks, [...found, ...regions].map(({task, cycle}) => `${task} ${cycle}`).join()]);
  return canvas;
}

/** Whether a task has found something in the pictures that a channel shows: in those of the same task, or in
 * pictures of the same camera and size. What a task has drawn on has its boxes in it already.
 * @param {Known} run @param {Channel} channel @param {{width: number, height: number, orientation: number} | null} shown
 * @param {{task: string, port?: string, width: number, height: number}} found */
function isSeenIn(run, channel, shown, found) {
  const {width, height} = found, end = endOf(found);
  if (channel.from !== null && run.picturesOf(end).has(channel.from)) return true;
  if (!channel.plain || !shown || !run.sourcesOf(end).includes(channel.camera)) return false;
  const [wide, high] = shown.orientation >= 5 ? [shown.height, shown.width] : [shown.width, shown.height];
  return wide === width && high === height;
}

/** The pixels of a recorded picture. @param {import("../timeline/pictures.js").Place} then */
const sizeOf = ({pixels: [width, height]}) => ({width, height, orientation: 1});

/** Without those that another task has gone on with, as a tracker does with what a detector has found.
 * @param {Known} run @param {import("../known.js").Detections[]} found */
const lastOf = (run, found) =>
  found.filter(one => !found.some(other => other !== one && run.above(other.task).has(one.task)));

/** What was found in the pictures of the moment looked at. @param {Known} run
 * @returns {import("../known.js").Detections[]} */
export const detectionsThen = ({then}) => Object.values(then?.detections ?? {}).map(({task, port, cycle, tov_ns, width, height, objects}) => ({
  task, port, cycle, timestamp_nanos: tov_ns, width, height,
  // These are given by their upper left corner.
  detections: objects.map((/** @type {any} */ box) => ({...box, x: box.x + box.width / 2, y: box.y + box.height / 2})),
}));

/** Zones and lines at the moment looked at. @param {Known} run @returns {import("../known.js").Regions[]} */
export const regionsThen = ({then}) => Object.values(then?.regions ?? {}).map(({tov_ns, ...it}) => ({...it, timestamp_nanos: tov_ns}));

/** Save the picture that is shown.
 * @param {string} name @param {HTMLCanvasElement | null} canvas @param {Picture | null} newest @param {HTMLImageElement | null} image */
function snapshot(name, canvas, newest, image) {
  const drawn = canvas ?? document.createElement("canvas");
  if (!newest && image) {
    drawn.width = image.naturalWidth;
    drawn.height = image.naturalHeight;
    drawn.getContext("2d")?.drawImage(image, 0, 0);
  }
  drawn.toBlob(blob => {
    if (!blob) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}${newest?.cycle != null ? `-cycle-${newest.cycle}` : ""}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}
