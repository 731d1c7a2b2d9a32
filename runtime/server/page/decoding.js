// @ts-check
// Decoding a camera's packets, live ones and recorded ones. docs/http-api.md describes the messages.

/** A picture to be drawn.
 * @typedef {{image: CanvasImageSource & {width?: number, height?: number, close?: () => void}, width: number,
 *   height: number, orientation: number, aspect: number, cycle: number | null, tov_ns: number | null,
 *   number?: number}} Picture number: of the packet that gives it */
/** @typedef {{type: "config", task: string, format: string, codec: string | null, description: string | null,
 *   width: number, height: number, orientation: number, fps: number, pixel_aspect: number,
 *   color_space: VideoColorSpaceInit, lost: number}} Config */
/** @type {Record<string, string>} */
const FORMATS = {h264: "H.264", h265: "H.265", vp8: "VP8", vp9: "VP9", av1: "AV1", png: "PNG video", rawvideo: "raw video"};
const MOST_QUEUED = 60;  // packets that the decoder has yet to decode; beyond, those up to the next key frame are left out
const MOST_NAMED = 600;
const MOST_FAILURES = 5;  // of the decoder, one after the other: more packets would not help

/** A JPEG as a picture of which nothing is known but its pixels. @param {Blob | ArrayBuffer | Uint8Array<ArrayBuffer>} data
 * @returns {Promise<Picture>} */
export async function jpegPicture(data) {
  const image = await createImageBitmap(data instanceof Blob ? data : new Blob([data], {type: "image/jpeg"}));
  return {image, width: image.width, height: image.height, orientation: 1, aspect: 1, cycle: null, tov_ns: null};
}

/** Decodes packets. */
export class Decoding {
  /** @param {{picture: (picture: Picture) => void, gap?: (why: string) => void, taken?: () => void}} on
   *   gap: no more pictures come until a key frame does; taken: the decoder has taken a packet of those that wait for it.
   * @param {boolean} [soon] whether each picture is to come as soon as it can: not on all cores, then */
  constructor(on, soon = true) {
    this.on = on;
    this.soon = soon;
    /** @type {Config | null} */ this.config = null;
    /** What the decoder was configured with. @type {VideoDecoderConfig | null} */ this.wanted = null;
    /** @type {VideoDecoder | null} */ this.decoder = null;
    /** Packet number -> the picture's cycle and time. @type {Map<number, {cycle: number, tov_ns: number}>} */
    this.named = new Map();
    /** Whether packets are left out until a key frame comes. */ this.skipping = false;
    /** How often the decoder has failed, and whether it has done so, or given a picture, since the last key frame. */
    this.failures = 0;
    this.failed = false;
    this.gave = false;
    /** Says that no pictures can be had. */
    this.fail = (/** @type {string} */ _why) => {};
  }

  /** @param {string | ArrayBuffer} data */
  message(data) {
    if (typeof data === "string") {
      const said = JSON.parse(data);
      if (said.type === "gap") this.pause(said.reason); else this.configure(said);
      return;
    }
    const view = new DataView(data);
    const packets = view.getUint32(4, true);
    this.named.set(Number(view.getBigUint64(24, true)),
      {cycle: Number(view.getBigUint64(8, true)), tov_ns: Number(view.getBigUint64(16, true))});
    if (this.named.size > MOST_NAMED) this.named.delete(this.named.keys().next().value ?? 0);
    const first = Number(view.getBigUint64(32, true));
    let at = 40 + 4 * packets;
    for (let i = 0; i < packets; i += 1) {
      const word = view.getUint32(40 + 4 * i, true), size = word & 0x7fffffff;
      this.packet(first + i, word >>> 31 === 1, new Uint8Array(data, at, size));
      at += size;
    }
  }

  /** @param {Config} config */
  configure(config) {
    this.close();
    this.config = config;
    this.skipping = false;
    if (config.format === "mjpeg") return;
    const {name} = this;
    if (!config.codec) { this.fail(`browsers decode no ${name}`); return; }
    if (typeof VideoDecoder === "undefined") { this.fail(`this browser cannot decode ${name} (no WebCodecs)`); return; }
    const description = config.description ? Uint8Array.from(atob(config.description), c => c.charCodeAt(0)) : undefined;
    const wanted = {codec: config.codec, ...description && {description}, colorSpace: config.color_space, optimizeForLatency: this.soon};
    this.wanted = wanted;
    this.begin();
    VideoDecoder.isConfigSupported(wanted).then(
      ({supported}) => { if (!supported && this.wanted === wanted) this.fail(`this browser cannot decode ${name}`); },
      error => { if (this.wanted === wanted) this.fail(error.message); });
  }

  /** What the packets are, for people. */
  get name() { const form = this.config?.format ?? "it"; return FORMATS[form] ?? form; }

  /** Decode with a decoder that knows nothing yet. */
  begin() {
    if (this.decoder?.state !== "closed") this.decoder?.close();
    this.decoder = null;
    if (!this.wanted) return;
    const decoder = this.decoder = new VideoDecoder({output: frame => this.decoded(frame), error: error => this.refused(error)});
    decoder.ondequeue = () => this.on.taken?.();
    try { decoder.configure(this.wanted); } catch (error) { this.fail(String(error)); }
  }

  /** The decoder has failed, as it may where packets are damaged. @param {unknown} error */
  refused(error) {
    const why = error instanceof Error ? error.message : String(error);
    if (error instanceof DOMException && error.name === "NotSupportedError") { this.fail(`this browser cannot decode ${this.name}`); return; }
    this.failures += 1;
    this.failed = true;
    if (this.failures < MOST_FAILURES) this.pause(why); else this.fail(why);
  }

  /** Go on at the next key frame. @param {string} why */
  pause(why) {
    this.skipping = true;
    this.begin();
    this.on.gap?.(why);
  }

  /** The packets that the decoder has yet to take. */
  get queued() { return this.decoder?.decodeQueueSize ?? 0; }

  /** Forget all that came since the configuration, as if a loss had been: a key frame comes next. */
  restart() {
    if (this.decoder?.state !== "configured" || !this.wanted) return;
    this.decoder.reset();
    this.decoder.configure(this.wanted);
  }

  /** Have all pictures that the decoder holds back. A key frame must come next. */
  async flush() { if (this.decoder?.state === "configured") await this.decoder.flush(); }

  /** @param {number} number @param {boolean} isKey @param {Uint8Array<ArrayBuffer>} data */
  packet(number, isKey, data) {
    if (this.config?.format === "mjpeg") { this.jpeg(number, data); return; }
    const decoder = this.decoder;
    if (decoder?.state !== "configured") return;
    if (isKey) {
      if (this.gave && !this.failed) this.failures = 0;
      this.skipping = this.failed = this.gave = false;
    } else if (decoder.decodeQueueSize > MOST_QUEUED) this.skipping = true;
    if (this.skipping) return;
    try { decoder.decode(new EncodedVideoChunk({type: isKey ? "key" : "delta", timestamp: number, data})); } catch (error) { this.refused(error); }
  }

  /** @param {number} number @param {Uint8Array<ArrayBuffer>} data */
  async jpeg(number, data) {
    try {
      const {image, width, height} = await jpegPicture(data);
      if (!this.skipping) this.show(number, image, width, height);
    } catch { /* a damaged picture: the next one will do */ }
  }

  /** @param {VideoFrame} frame */
  decoded(frame) {
    this.gave = true;
    // Its display size has the pixels' aspect in it where the packets say that, and not where the file does.
    const {width, height} = frame.visibleRect ?? {width: frame.codedWidth, height: frame.codedHeight};
    this.show(frame.timestamp, frame, width, height);
  }

  /** @param {number} number @param {Picture["image"]} image @param {number} width @param {number} height */
  show(number, image, width, height) {
    const {cycle = null, tov_ns = null} = this.named.get(number) ?? {};
    const {orientation = 1, pixel_aspect: aspect = 1} = this.config ?? {};
    this.on.picture({image, width, height, orientation, aspect: aspect || 1, cycle, tov_ns, number});
  }

  close() {
    this.wanted = null;
    this.begin();
  }
}
