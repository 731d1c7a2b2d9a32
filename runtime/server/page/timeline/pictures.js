// @ts-check
// The picture of a camera at the moment that is looked at: decoded here, or a JPEG where that cannot be.
import {address, refusal, why} from "../api.js";
import {useEffect, useMemo, useRef, useState} from "../html.js";
import {jpegPicture} from "../decoding.js";
import {drawPicture} from "../live/draw.js";
import {Film} from "./film.js";
import {loadMoment, place, wide} from "./moments.js";

/** @typedef {import("../decoding.js").Picture} Picture */
/** Where a picture is, as `GET .../moment` gives it.
 * @typedef {import("../known.js").Moment["images"][string]} Place */
/** What is drawn. key: the key frame that it needs, if packets give it. exact: whether it is the one that is wanted.
 * @typedef {{cycle: number, at_ns: number | null, key: number | null, exact: boolean}} Shown */

/** Those of the cameras that are shown, by where their packets are. @type {Map<string, Film>} */
const films = new Map();
/** @param {string} run @param {string} task */
const packetsOf = (run, task) => `${place(run)}/packets/${encodeURIComponent(task)}`;

/** Have the pictures of a moment decoded that somebody may go to soon. Returns whether they are there.
 * @param {string} run @param {number} cycle @param {() => boolean} isOver whether nobody will */
export async function foresee(run, cycle, isOver) {
  const moment = await loadMoment(run, cycle).catch(() => null);
  if (!moment || isOver()) return false;
  const found = Object.entries(/** @type {Record<string, Place>} */ (moment.images)).map(([task, {packets, cycle: its}]) =>
    packets && films.get(packetsOf(run, task))?.foresee({cycle: its, ...packets}));
  return (await Promise.all(found)).some(Boolean);
}

/** Draws onto a canvas the picture at `then`, and while that is made and far away, those that are there sooner.
 * `error` says why it cannot be had, `form` why it is a JPEG.
 * @param {string} run @param {string} task whose pictures they are @param {Place | null} then */
export function usePast(run, task, then) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [shown, setShown] = useState(/** @type {Shown | null} */ (null));
  const [error, setError] = useState("");
  const film = useMemo(() => new Film(packetsOf(run, task)), [run, task]);
  useEffect(() => {
    films.set(film.url, film);
    return () => { if (films.get(film.url) === film) films.delete(film.url); film.close(); };
  }, [film]);
  useEffect(() => {
    setError("");
    if (!then) { film.stop(); setShown(null); return undefined; }
    const left = new AbortController();
    const key = then.packets?.key ?? null;
    /** @param {Picture} picture @param {number | null} key that it needs @param {boolean} exact */
    const draw = (picture, key, exact) => {
      if (!left.signal.aborted && canvas.current) {
        drawPicture(canvas.current, picture, wide());
        setShown(exact ? {cycle: then.cycle, at_ns: then.at_ns, key, exact} : {cycle: picture.cycle ?? key ?? 0, at_ns: picture.tov_ns, key, exact});
      }
      picture.image.close?.();
    };
    const isNew = key !== null && shown?.key !== key;
    pictures(film, then, left.signal, isNew, (picture, its) => draw(picture, its, false)).then(
      picture => { if (picture) draw(picture, key, true); },
      failure => { if (!left.signal.aborted) setError(why(failure)); });
    return () => left.abort();
  }, [film, then?.cycle, then?.url]);
  return {canvas, shown: then ? shown : null, error, form: then?.packets ? film.why : ""};
}

/** @param {Film} film @param {Place} then @param {AbortSignal} left @param {boolean} isNew whether nothing is shown that needs
 *   the same key frame @param {import("./film.js").Near} near as of `Film.picture`
 * @returns {Promise<Picture | null>} */
async function pictures(film, then, left, isNew, near) {
  const {packets, cycle, url} = then;
  if (packets && !film.why) {
    try { return await film.picture({cycle, ...packets}, near); } catch { /* the server may have it */ }
    if (left.aborted) return null;
  }
  if (packets && isNew && cycle - packets.key > 1) near(await jpeg(url.replace(/cycle=\d+/, `cycle=${packets.key}`), left), packets.key);
  return jpeg(url, left);
}

/** @param {string} url @param {AbortSignal} signal @returns {Promise<Picture>} */
async function jpeg(url, signal) {
  const reply = await fetch(address(url), {signal});
  if (!reply.ok) throw await refusal(reply);
  return jpegPicture(await reply.blob());
}

/** What is shown instead of the exact picture, for people. @param {Shown} shown @param {Place} then */
export function insteadOf(shown, then) {
  const by_s = shown.at_ns === null ? 0 : (then.at_ns - shown.at_ns) / 1e9;
  const far = by_s ? `, ${Math.abs(by_s).toFixed(1)} s ${by_s > 0 ? "before" : "after"}` : "";
  return `${shown.cycle === shown.key ? "key frame" : "another picture"}${far}; the exact one comes`;
}

/** Once the pictures of a moment are drawn, as far as they can be had. @param {number | null} cycle of the moment; null
 *   for whichever is looked at @param {() => boolean} isOver whether nobody waits any more */
export async function drawn(cycle, isOver) {
  const other = cycle === null ? "" : `.screen[data-moment]:not([data-moment="${cycle}"]), `;
  while (!isOver() && document.querySelector(`${other}.screen[data-past="coming"]`)) await new Promise(requestAnimationFrame);
}
