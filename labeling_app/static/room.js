// @ts-check
// Images as large as the screen allows: in how many columns, and how wide.

/** @import { LoadedImage } from "../interface.d.ts" */

const SMALLEST = 150; // px; where the screen has no room for this width, the page scrolls
const EDGE = 14; // px below the page

/**
 * Returns the columns in which `count` images are widest, and this width, all in pixels.
 *
 * @param {number} count
 * @param {{ width: number, height: number }} room
 * @param {number} aspect width by height of an image
 * @param {{ gap: number, frame: number }} around between two images, and around each
 */
export function widest(count, room, aspect, { gap, frame }) {
  const most = Math.floor((room.width + gap) / (SMALLEST + frame + gap));
  let best = { columns: Math.min(count, Math.max(most, 1)), width: SMALLEST };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const across = (room.width - (columns - 1) * gap) / columns - frame;
    const down = (room.height - (rows - 1) * gap) / rows - frame;
    const width = Math.floor(Math.min(across, down * aspect));
    if (width > best.width) best = { columns, width };
  }
  return best;
}

/**
 * Returns in how many columns the cards stand on the screen.
 *
 * @param {HTMLElement} cards
 */
export function drawnColumns(cards) {
  const tops = [...cards.children].map((card) => card.getBoundingClientRect().top);
  return tops.filter((top) => Math.abs(top - tops[0]) < 1).length;
}

export class Room {
  /**
   * The room that the page leaves for the images of `cards`. They follow when the window changes or
   * the guidelines open, not when a line comes or goes: images must not jump under the mouse.
   *
   * @param {HTMLElement} cards
   */
  constructor(cards) {
    this.cards = cards;
    this.aspect = 1;
    this.across = 0; // px
    new ResizeObserver(() => {
      if (cards.clientWidth !== this.across) this.fit();
    }).observe(cards);
    globalThis.addEventListener("resize", () => this.fit());
  }

  /** @param {LoadedImage[]} images */
  fill(images) {
    const shapes = images.filter(({ broken }) => !broken).map(({ element }) => element);
    this.aspect = Math.max(...shapes.map((one) => one.naturalWidth / one.naturalHeight), 0) || 1;
    this.cards.style.setProperty("--aspect", String(this.aspect));
    this.fit();
  }

  fit() {
    const { cards } = this;
    const page = cards.closest(".task");
    const [first] = cards.children;
    const image = first?.querySelector("img");
    if (!page || !image || !cards.offsetParent) return; // not on the screen
    const { top, bottom, width } = cards.getBoundingClientRect();
    const above = top + scrollY;
    const below = page.getBoundingClientRect().bottom - bottom + EDGE;
    this.across = cards.clientWidth;
    const room = { width, height: innerHeight - above - below };
    const gap = parseFloat(getComputedStyle(cards).columnGap);
    const frame = first.getBoundingClientRect().width - image.getBoundingClientRect().width;
    const best = widest(cards.children.length, room, this.aspect, { gap, frame });
    cards.style.setProperty("--columns", String(best.columns));
    cards.style.setProperty("--width", `${best.width}px`);
  }
}
