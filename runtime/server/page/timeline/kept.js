// @ts-check
// Decoded pictures that may be wanted again.

/** @typedef {import("../decoding.js").Picture} Picture */

const KEPT_BYTES = 160 << 20;   // of decoded pictures that are kept, of all cameras

/** Decoded pictures of all cameras, those used last the last. */
export const kept = {
  /** @type {Map<string, {picture: Picture, data: ArrayBuffer, init: VideoFrameBufferInit}>} */ frames: new Map(),
  size: 0,

  /** Keep a copy: a decoder may have few places for its own. @param {string} key @param {Picture} picture */
  async add(key, picture) {
    const {image} = picture;
    if (typeof VideoFrame === "undefined" || !(image instanceof VideoFrame) || !image.format || this.frames.has(key)) return;
    const frame = image.clone();
    try {
      const data = new ArrayBuffer(frame.allocationSize());
      const layout = await frame.copyTo(data);
      const {width, height} = frame.visibleRect ?? {width: frame.codedWidth, height: frame.codedHeight};
      const init = {format: /** @type {VideoPixelFormat} */ (frame.format), codedWidth: width, codedHeight: height,
        timestamp: frame.timestamp, layout, colorSpace: frame.colorSpace.toJSON()};
      if (this.frames.has(key)) return;
      this.frames.set(key, {picture, data, init});
      this.size += data.byteLength;
      for (const [oldest, {data: its}] of this.frames) {
        if (this.size <= KEPT_BYTES) break;
        this.size -= its.byteLength;
        this.frames.delete(oldest);
      }
    } catch { /* it is decoded again */ } finally {
      frame.close();
    }
  },

  /** @param {string} key @returns {Picture | null} */
  get(key) {
    const found = this.frames.get(key);
    if (!found) return null;
    this.frames.delete(key);
    this.frames.set(key, found);
    return {...found.picture, image: new VideoFrame(found.data, found.init)};
  },

  /** @param {string} front */
  drop(front) {
    for (const [key, {data}] of this.frames) if (key.startsWith(front)) { this.frames.delete(key); this.size -= data.byteLength; }
  },
};
