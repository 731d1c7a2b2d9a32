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

/** A JPEG as a picture of which nothing is known but its pixels. @param {Blob | ArrayBuffer | Uint8Array<ArrayBuffer>} data
 * @returns {Promise<Picture>} */
export async function jpegPicture(data) {
  const image = await createImageBitmap(data instanceof Blob ? data : new Blob([data], {type: "image/jpeg"}));
  return {image, width: image.width, height: image.height, orientation: 1, aspect: 1, cycle: null, tov_ns: null};
}

/** Decodes packets. */
export class Decoding {
  /** @param {{picture: (picture: Picture) => void, configured?: (config: Config) => void, taken?: () => void}} on
   *   taken: the decoder has taken a packet of those that wait for it.
   * @param {boolean} [soon] whether each picture is to come as soon as it can: not on all cores, then */
  constructor(on, soon = true) {
    this.on = on;
    this.soon = soon;
    /** @type {Config | null} */ this.config = null;
    /** What the decoder was configured with. @type {VideoDecoderConfig | null} */ this.wanted = null;
    /** @type {VideoDecoder | null} */ this.decoder = null;
    /** Packet number -> the picture's cycle and time. @type {Map<number, {cycle: number, tov_ns: number}>} */
    this.named = new Map();
    this.skipping = false;
    this.fail = (/** @type {string} */ _why) => {};
  }

  /** @param {string | ArrayBuffer} data */
  message(data) {
    if (typeof data === "string") { this.configure(JSON.parse(data)); return; }
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
    this.config = config;
    this.on.configured?.(config);
    if (this.decoder?.state !== "closed") this.decoder?.close();
    this.decoder = null;
    if (config.format === "mjpeg") return;
    const name = FORMATS[config.format] ?? config.format;
    if (!config.codec) { this.fail(`browsers decode no ${name}`); return; }
    if (typeof VideoDecoder === "undefined") { this.fail(`this browser cannot decode ${name} (no WebCodecs)`); return; }
    this.decoder = new VideoDecoder({output: frame => this.decoded(frame), error: error => this.fail(error.message)});
    const description = config.description ? Uint8Array.from(atob(config.description), c => c.charCodeAt(0)) : undefined;
    const wanted = {codec: config.codec, ...description && {description}, colorSpace: config.color_space, optimizeForLatency: this.soon};
    this.wanted = wanted;
    const decoder = this.decoder;
    decoder.ondequeue = () => this.on.taken?.();
    VideoDecoder.isConfigSupported(wanted).then(
      ({supported}) => { if (!supported && this.decoder === decoder) this.fail(`this browser cannot decode ${name}`); },
      error => this.fail(error.message));
    try { decoder.configure(wanted); } catch (error) { this.fail(String(error)); }
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
    if (isKey) this.skipping = false;
    else if (decoder.decodeQueueSize > MOST_QUEUED) this.skipping = true;
    if (!this.skipping) decoder.decode(new EncodedVideoChunk({type: isKey ? "key" : "delta", timestamp: number, data}));
  }

  /** @param {number} number @param {Uint8Array<ArrayBuffer>} data */
  async jpeg(number, data) {
    try {
      const {image, width, height} = await jpegPicture(data);
      this.show(number, image, width, height);
    } catch { /* a damaged picture: the next one will do */ }
  }

  /** @param {VideoFrame} frame */
  decoded(frame) {
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

  close() { if (this.decoder?.state !== "closed") this.decoder?.close(); }
}
