// @ts-check
// Drawing pictures the right way up, and what was found in them.

/** @typedef {import("../decoding.js").Picture} Picture */
/** @typedef {import("../known.js").Detections} Detections */
/** @typedef {import("../known.js").Regions} Regions */
/** What is drawn over pictures. @typedef {{boxes: boolean, tracks: boolean, zones: boolean}} Marks */

/** Draw a picture upright, with square pixels. @param {HTMLCanvasElement} canvas @param {Picture} picture
 * @param {number} [most] how wide it is at most */
export function drawPicture(canvas, {image, width, height, orientation, aspect: shown}, most = Infinity) {
  const turned = orientation >= 5;
  const aspect = turned ? 1 / shown : shown;  // of a pixel as it lies in the picture that was sent
  const whole = [width * Math.max(1, aspect), height / Math.min(1, aspect)];
  const less = Math.min(1, most / whole[turned ? 1 : 0]);
  const [wide, high] = whole.map(side => Math.round(side * less));
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

  /** @param {HTMLCanvasElement} canvas of the picture's size @param {Detections[]} all @param {Marks} what @param {Regions[]} [regions] */
  draw(canvas, all, {boxes, tracks, zones}, regions = []) {
    const {context, unit} = pen(canvas);
    const {width: w, height: h} = canvas;
    context.clearRect(0, 0, w, h);
    if (zones) this.drawRegions(canvas, regions);
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
        label(canvas, text, left - unit, top, colour);
      }
    }
  }

  /** Zones with who is in them, lines with who has crossed them. @param {HTMLCanvasElement} canvas @param {Regions[]} all */
  drawRegions(canvas, all) {
    const {context, unit} = pen(canvas);
    for (const {width, height, zones, lines} of all) {
      const [x, y] = [canvas.width / width, canvas.height / height];
      for (const [number, {name, polygon, count, total}] of zones.entries()) {
        const colour = COLOURS[(number + 4) % COLOURS.length];
        const corners = /** @type {[number, number][]} */ (polygon.map(([px, py]) => [px * x, py * y]));
        context.beginPath();
        for (const corner of corners) context.lineTo(...corner);
        context.closePath();
        context.fillStyle = `${colour}${count ? "40" : "18"}`;
        context.fill();
        context.strokeStyle = colour;
        context.stroke();
        const highest = corners.reduce((best, corner) => corner[1] < best[1] ? corner : best);
        label(canvas, `${name}: ${count}${total ? `, ${total} in all` : ""}`, highest[0], highest[1], colour, {below: true});
      }
      for (const [number, {name, line: [x1, y1, x2, y2], in: ins, out: outs}] of lines.entries()) {
        const colour = COLOURS[(number + 1) % COLOURS.length];
        const [from, to] = [[x1 * x, y1 * y], [x2 * x, y2 * y]];
        const [cx, cy] = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
        const long = Math.max(1e-6, Math.hypot(to[0] - from[0], to[1] - from[1]));
        const [ux, uy] = [(to[0] - from[0]) / long, (to[1] - from[1]) / long];
        context.strokeStyle = colour;
        context.beginPath();
        context.moveTo(from[0], from[1]);
        context.lineTo(to[0], to[1]);
        // An arrow to the side that is "in": to the right of one who walks along the line.
        const [tx, ty] = [cx - uy * 22 * unit, cy + ux * 22 * unit];
        context.moveTo(cx, cy);
        context.lineTo(tx, ty);
        context.moveTo(tx + (uy + ux) * 6 * unit, ty + (uy - ux) * 6 * unit);
        context.lineTo(tx, ty);
        context.lineTo(tx + (uy - ux) * 6 * unit, ty - (ux + uy) * 6 * unit);
        context.stroke();
        label(canvas, `${name}: ${ins} in, ${outs} out`, cx, cy, colour);
      }
    }
  }
}

/** What draws on a canvas, and how many of its pixels are one of the screen. @param {HTMLCanvasElement} canvas */
function pen(canvas) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const {width: w, height: h} = canvas;
  const unit = w / Math.max(1, Math.min(canvas.clientWidth, canvas.clientHeight * w / h));
  context.lineWidth = 2 * unit;
  context.font = `600 ${12 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  return {context, unit};
}

/** A text that begins at a point, above it where there is room. @param {HTMLCanvasElement} canvas @param {string} text
 * @param {number} x @param {number} y @param {string} colour @param {{below?: boolean}} [where] below: always below it */
function label(canvas, text, x, y, colour, {below = false} = {}) {
  const {context, unit} = pen(canvas);
  const tall = 17 * unit, wide = context.measureText(text).width + 9 * unit;
  const at = below || y < tall ? y : y - tall;
  const left = Math.max(0, Math.min(x, canvas.width - wide));
  context.fillStyle = colour;
  context.fillRect(left, at, wide, tall);
  context.fillStyle = "#0b0f14";
  context.fillText(text, left + 4 * unit, at + 12.5 * unit);
}
