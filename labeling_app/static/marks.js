// @ts-check
// Marks on an image: their geometry, and a drawing of them.
//
// A drawing is an SVG that lies over the image. Its units are the pixels of the original, and the
// browser fits it as it fits the image, so both lie at the same place at any size on the screen.

/** @import { Mark } from "../interface.d.ts" */

/** @typedef {{ x: number, y: number }} Spot in fractions of the image */
/** @typedef {{ width: number, height: number }} Size in pixels of the original */

const RADIUS = 1 / 20; // of the disc that a point stands for, as data/regions.py has it

/**
 * Returns the words of a prompt as data/regions.py splits them.
 *
 * @param {string} prompt
 */
export function wordsOf(prompt) {
  return prompt.split(/[,.?!":; ]+/).filter(Boolean);
}

/** @param {number} share */
export function within(share) {
  return Math.min(Math.max(share, 0), 1);
}

/**
 * @param {Spot} spot
 * @returns {Pick<Mark, "kind" | "x0" | "y0" | "x1" | "y1">}
 */
export function point({ x, y }) {
  return { kind: "point", x0: within(x), y0: within(y), x1: null, y1: null };
}

/**
 * Returns the box between two corners, which is a pixel wide and high at least.
 *
 * @param {Spot} one
 * @param {Spot} other
 * @param {Size} size
 * @returns {Pick<Mark, "kind" | "x0" | "y0" | "x1" | "y1">}
 */
export function box(one, other, { width, height }) {
  const [x0, x1] = span(one.x, other.x, 1 / width);
  const [y0, y1] = span(one.y, other.y, 1 / height);
  return { kind: "box", x0, y0, x1, y1 };
}

/**
 * @param {number} one
 * @param {number} other
 * @param {number} least
 */
function span(one, other, least) {
  const low = Math.min(within(one), within(other), 1 - least);
  return [low, Math.max(within(one), within(other), low + least)];
}

/**
 * Returns a mark at another place, which is inside the image too.
 *
 * @param {Mark} mark
 * @param {Spot} by
 * @returns {Mark}
 */
export function moved(mark, by) {
  const { x0, y0, x1, y1 } = mark;
  const x = Math.min(Math.max(by.x, -x0), 1 - (x1 ?? x0));
  const y = Math.min(Math.max(by.y, -y0), 1 - (y1 ?? y0));
  const end = { x1: x1 == null ? null : within(x1 + x), y1: y1 == null ? null : within(y1 + y) };
  return { ...mark, x0: within(x0 + x), y0: within(y0 + y), ...end };
}

/**
 * Returns the upper left corner; the middle of the image without a mark.
 *
 * @param {Mark} [mark]
 * @returns {Spot}
 */
export function startOf(mark) {
  return mark ? { x: mark.x0, y: mark.y0 } : { x: 0.5, y: 0.5 };
}

/**
 * Returns the corners of a box by name: which side across, and which down.
 *
 * @param {Mark} mark
 * @returns {Record<string, Spot>}
 */
function cornersOf({ x0, y0, x1, y1 }) {
  const [right, bottom] = [x1 ?? x0, y1 ?? y0];
  return {
    "00": { x: x0, y: y0 },
    "10": { x: right, y: y0 },
    "01": { x: x0, y: bottom },
    "11": { x: right, y: bottom },
  };
}

/**
 * Returns the corner that stays when another one is dragged.
 *
 * @param {Mark} mark
 * @param {string} corner
 */
export function opposite(mark, corner) {
  return cornersOf(mark)[corner.replace(/./g, (side) => String(1 - Number(side)))];
}

/**
 * Returns a drawing of marks, to lie over an image of this size.
 *
 * @param {Mark[]} marks
 * @param {Size} size
 * @param {{ chosen?: number, zoom?: number }} [on] place of the mark that is being worked on
 */
export function drawing(marks, { width, height }, { chosen = -1, zoom = 1 } = {}) {
  const longer = Math.max(width, height);
  const letter = longer / 24 / zoom;
  const all = svg("svg", {
    class: "marks",
    viewBox: `0 0 ${width} ${height}`,
    "aria-hidden": "true",
  });
  marks.forEach((mark, place) => {
    const [x, y] = [mark.x0 * width, mark.y0 * height];
    const [right, bottom] = [(mark.x1 ?? mark.x0) * width, (mark.y1 ?? mark.y0) * height];
    const look = place === chosen ? "chosen" : "";
    const group = svg("g", { class: look, "data-aspect": mark.aspect });
    const outline = mark.kind === "box" ? `M${x} ${y}H${right}V${bottom}H${x}Z` : dot(x, y);
    if (mark.kind === "point") {
      const disc = { cx: x, cy: y, r: RADIUS * longer };
      group.append(
        svg("circle", { class: "halo", ...disc }),
        svg("circle", { class: "line", ...disc }),
      );
    }
    for (const name of ["halo", "line"]) group.append(svg("path", { class: name, d: outline }));
    const number = svg("text", {
      x,
      y,
      "font-size": letter,
      dx: letter / 4,
      dy: letter,
    });
    number.textContent = String(place + 1);
    group.append(number, svg("path", { class: "grip", d: outline, "data-mark": place }));
    for (
      const [corner, at] of mark.kind === "box" && place === chosen
        ? Object.entries(cornersOf(mark))
        : []
    ) {
      const d = dot(at.x * width, at.y * height);
      group.append(
        svg("path", { class: "grip corner", d, "data-mark": place, "data-corner": corner }),
      );
    }
    all.append(group);
  });
  return all;
}

/**
 * Returns what shows the cursor of the keyboard, and the box that it draws.
 *
 * @param {Spot} cursor
 * @param {Spot | null} anchor
 * @param {Size} size
 */
export function cursorOf(cursor, anchor, { width, height }) {
  const [x, y] = [cursor.x * width, cursor.y * height];
  const arm = Math.max(width, height) / 40;
  const d = `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
  const edges = anchor
    ? `M${anchor.x * width} ${anchor.y * height}H${x}V${y}H${anchor.x * width}Z`
    : "";
  return ["halo", "line"].map((name) => svg("path", { class: `${name} cursor`, d: d + edges }));
}

/**
 * Returns a path that is drawn as a dot of the same size on any screen.
 *
 * @param {number} x
 * @param {number} y
 */
function dot(x, y) {
  return `M${x} ${y}h.0001`;
}

/**
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number>} attributes
 */
function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
