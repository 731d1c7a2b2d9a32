// @ts-check
// The pictures of one channel as they come: packets that the browser decodes, or JPEGs.
// docs/http-api.md describes the messages.
import {socketAddress} from "../api.js";
import {Decoding, jpegPicture} from "../decoding.js";

/** @typedef {import("../decoding.js").Picture} Picture */
/** What a stream says of itself. `ended`: nothing more comes; `failed`: this form cannot be had, `why` says why;
 * `waits`: it is asked for again; `gap`: no more pictures come in this form until a key frame does.
 * @typedef {{picture: (picture: Picture) => void, gap?: (why: string) => void,
 *   ended: () => void, failed: (why: string) => void, waits?: (why: string) => void}} On */

const RETRY_MS = 2000;
const AGAIN_MS = 500;  // before a second try, where nothing has come: the run may be about to end
const NO_SUCH = 4404;
const ENDED = 1000;
const LATER = [1001, 1012, 1013];  // the server is stopping, or has no place now

/** Follow a channel in one form, again after a loss. Returns what ends it.
 * @param {string} channel @param {"packets" | "jpeg"} format @param {On} on */
export function follow(channel, format, on) {
  const take = format === "packets" ? new Decoding(on) : new Jpegs(on);
  let over = false, came = false, tries = 0;
  let timer = 0;
  /** @type {WebSocket | null} */ let socket = null;
  function open() {
    tries += 1;
    const opened = new WebSocket(socketAddress(`api/v0/streaming/ws/${encodeURIComponent(channel)}`, {format, stamps: 1}));
    socket = opened;
    opened.binaryType = "arraybuffer";
    opened.onmessage = ({data}) => { came = true; if (!over) take.message(data); };
    opened.onclose = ({code, reason}) => {
      if (over) return;
      if (code === ENDED) { on.ended(); return; }
      if (LATER.includes(code)) on.waits?.(reason);
      else if (code === NO_SUCH || !came && tries > 1) { stop(); on.failed(reason || "no connection for pictures"); return; }
      timer = setTimeout(open, came ? RETRY_MS : AGAIN_MS);
    };
  }
  function stop() {
    over = true;
    clearTimeout(timer);
    const left = socket;
    if (left?.readyState === WebSocket.CONNECTING) left.onopen = () => left.close();  // closing sooner is an error in the console
    else left?.close();
    take.close();
  }
  take.fail = why => { stop(); on.failed(why); };
  open();
  return stop;
}

/** Follow a camera's packets, and its JPEGs wherever the packets give no pictures for a while. Returns what ends it.
 * @param {string} channel @param {boolean} jpegs whether the channel has JPEGs @param {On & {whole: () => void}} on
 *   whole: packets give pictures again */
export function followPackets(channel, jpegs, on) {
  /** @type {(() => void) | null} */ let instead = null;
  const goOn = () => { instead?.(); instead = null; };
  const stop = follow(channel, "packets", {
    ...on,
    picture: picture => { goOn(); on.whole(); on.picture(picture); },
    gap: why => {
      on.gap?.(why);
      if (!jpegs || instead) return;
      const leave = instead = follow(channel, "jpeg", {
        picture: picture => { if (instead === leave) on.picture(picture); else picture.image.close?.(); },
        ended: () => {},
        failed: () => {},
      });
    },
    failed: why => { goOn(); on.failed(why); },
  });
  return () => { goOn(); stop(); };
}

/** Shows JPEGs one after the other; of those that come while one is made, only the newest. */
class Jpegs {
  /** @param {On} on */
  constructor(on) {
    this.on = on;
    this.busy = false;
    /** Of the JPEG that comes next. @type {{cycle: number | null, timestamp_nanos: number | null}} */
    this.stamp = {cycle: null, timestamp_nanos: null};
    /** The newest that has yet to be made. @type {{data: ArrayBuffer, cycle: number | null, tov_ns: number | null} | null} */
    this.waiting = null;
    this.fail = (/** @type {string} */ _why) => {};
  }

  /** @param {string | ArrayBuffer} data */
  message(data) {
    if (typeof data === "string") { this.stamp = JSON.parse(data); return; }
    this.waiting = {data, cycle: this.stamp.cycle, tov_ns: this.stamp.timestamp_nanos};
    if (!this.busy) this.make();
  }

  async make() {
    this.busy = true;
    while (this.waiting) {
      const {data, ...stamp} = this.waiting;
      this.waiting = null;
      try {
        this.on.picture({...await jpegPicture(data), ...stamp});
      } catch { /* a damaged picture: the next one will do */ }
    }
    this.busy = false;
  }

  close() { this.waiting = null; }
}
