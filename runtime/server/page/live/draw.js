// @ts-check
// Drawing pictures the right way up, and what was found in them.

/** @typedef {import("./stream.js").Picture} Picture */
/** @typedef {import("../known.js").Detections} Detections */

/** Draw a picture upright, with square pixels. @param {HTMLCanvasElement} canvas @param {Picture} picture */
export function drawPicture(canvas, {image, width, height, orientation, aspect: shown}) {
  const turned = orientation >= 5;
  const aspect = turned ? 1 / shown : shown;  // of a pixel as it lies in the picture that was sent
  const [wide, high] = [Math.round(width * Math.max(1, aspect)), Math.round(height / Math.min(1, aspect))];
  const [w, h] = turned ? [high, wide] : [wide, high];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", {alpha: false}));
  // EXIF's eight ways up: what it takes to bring each upright.
  const turns = /** @type {[number, number, number, number, number, number][]} */ ([[1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, w, 0], [-1, 0, 0, -1, w, h], [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, w, 0], [0, -1, -1, 0, w, h], [0, -1, 1, 0, 0, h]]);
  context.setTransform(...turns[(orientation || 1) - 1]);
  context.drawImage(image, 0, 0, wide, high);
  context.resetTransform();
}

/** The colours of classes, on any picture. */
const COLOURS = ["#4ea1ff", "#ffa04d", "#49d6b6", "#e08bff", "#ffd54a", "#ff7aa8", "#9be564", "#7ee0ff"];
const TRAIL = 40;

/** Draws boxes with class, confidence and track, and the ways that tracks have come. */
export class Overlay {
  constructor() {
    /** By task and tracker. @type {Map<string, {points: [number, number][], cycle: number}>} */
    this.trails = new Map();
  }

  /** Note where tracks are now. @param {Detections} found */
  note({task, cycle, width, height, detections}) {
    for (const {x, y, tracker_id} of detections) {
      if (tracker_id === null) continue;
      const key = `${task} ${tracker_id}`;
      const trail = this.trails.get(key) ?? {points: [], cycle: -1};
      if (trail.cycle !== cycle) trail.points.push([x / width, y / height]);
      trail.cycle = cycle;
      if (trail.points.length > TRAIL) trail.points.shift();
      this.trails.delete(key);
      this.trails.set(key, trail);
    }
    while (this.trails.size > 200) this.trails.delete(this.trails.keys().next().value ?? "");
  }

  /** @param {HTMLCanvasElement} canvas of the picture's size @param {Detections[]} all @param {{boxes: boolean, tracks: boolean}} what */
  draw(canvas, all, {boxes, tracks}) {
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const {width: w, height: h} = canvas;
    context.clearRect(0, 0, w, h);
    const unit = w / Math.max(1, Math.min(canvas.clientWidth, canvas.clientHeight * w / h));  // one pixel of the screen
    context.lineWidth = 2 * unit;
    context.font = `600 ${12 * unit}px system-ui, "DejaVu Sans", sans-serif`;
    for (const {task, width, height, detections} of all) {
      for (const {x, y, width: wide, height: high, confidence, class: name, class_id: id, tracker_id: tracker} of detections) {
        const colour = COLOURS[Math.abs(tracker ?? id ?? 0) % COLOURS.length];
        context.strokeStyle = context.fillStyle = colour;
        const trail = tracks && tracker !== null && this.trails.get(`${task} ${tracker}`);
        if (trail) {
          context.beginPath();
          for (const [px, py] of trail.points) context.lineTo(px * w, py * h);
          context.stroke();
        }
        if (!boxes) continue;
        const [left, top] = [(x - wide / 2) / width * w, (y - high / 2) / height * h];
        context.strokeRect(left, top, wide / width * w, high / height * h);
        const text = [name, confidence === null ? "" : confidence.toFixed(2), tracker === null ? "" : `#${tracker}`].filter(Boolean).join(" ");
        const tall = 17 * unit, at = top < tall ? top : top - tall;
        context.fillRect(left - unit, at, context.measureText(text).width + 9 * unit, tall);
        context.fillStyle = "#0b0f14";
        context.fillText(text, left + 3 * unit, at + 12.5 * unit);
      }
    }
  }
}
