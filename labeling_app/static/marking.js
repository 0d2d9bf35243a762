// @ts-check
// Marks on an image that is bad or reported: where it is wrong, and in what way.

/** @import { BinaryAnswer, Answer, HalfMarked, InputMode, Item, Mark } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */
/** @import { Size, Spot } from "./marks.js" */

import { closest, facts, find, findAll, made, slot } from "./dom.js";
import { digitOf, modeOf } from "./input.js";
import { keys } from "./keys.js";
import {
  box,
  cursorOf,
  drawing,
  moved,
  opposite,
  point,
  startOf,
  within,
  wordsOf,
} from "./marks.js";
import { words } from "./words.js";

/**
 * What a pointer does from where it went down: it makes a mark, or moves or resizes one.
 *
 * @typedef {{
 *   event: PointerEvent, start: Spot, before: Mark[], place: number, corner?: string, moved: boolean,
 * }} Gesture
 */

const SLACK_PX = 6; // a click may tremble this much
const UNSEEN_MS = 300; // the second half of a double click on a button sets no mark
const STEP = 1 / 100; // of the image, by an arrow key
const HELD_STEP = 1 / 30; // by one that is held down
const MOST = 50;
const ZOOMS = [1, 2, 4];
/** @type {Partial<Record<string, [number, number]>>} */
const STEPS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };
/** @type {Partial<Record<string, string>>} */
const NAMES = { artifact: "marking.artifact", misaligned: "marking.misaligned" };
/** @type {[1 | 2 | 3, string][]} */
const SEVERITIES = [[1, "marking.slight"], [2, "marking.clear"], [3, "marking.severe"]];

export class Marking {
  /**
   * `changed(half)` is called after each change, `done(answer, mode)` with the answer and its marks.
   *
   * @param {HTMLElement} page
   * @param {{
   *   fullSize: FullSize,
   *   changed: (half: HalfMarked) => void,
   *   done: (answer: Answer, mode: InputMode) => void,
   * }} parts
   */
  constructor(page, { fullSize, changed, done }) {
    const dialog = this.dialog = slot(page, "marking", HTMLDialogElement);
    this.stage = slot(page, "stage", HTMLElement);
    this.surface = slot(dialog, "surface", HTMLElement);
    this.sheet = slot(dialog, "sheet", HTMLElement);
    this.chips = slot(dialog, "words", HTMLElement);
    this.list = slot(dialog, "marks", HTMLElement);
    this.comment = find(dialog, "textarea", HTMLTextAreaElement);
    this.spoken = slot(dialog, "marked", HTMLElement);
    this.fullSize = fullSize;
    this.changed = changed;
    this.done = done;
    const { marks, mark_aspects } = facts().settings;
    this.asked = marks;
    this.names = mark_aspects;
    this.aspect = mark_aspects[0]; // of the next mark
    /** @type {Item | null} */
    this.item = null;
    /** @type {BinaryAnswer | null} */
    this.answer = null; // which waits for its marks
    /** @type {Mark[]} */
    this.marks = [];
    this.chosen = -1; // place of the mark that is being worked on
    this.grabs = false; // whether arrows move that mark
    this.hidden = false;
    this.zoom = 0; // place in ZOOMS
    /** @type {Mark[][]} */
    this.past = [];
    /** @type {Spot | null} */
    this.cursor = null; // of the keyboard
    /** @type {Spot | null} */
    this.anchor = null; // other corner of the box that arrows draw
    /** @type {Gesture | null} */
    this.gesture = null;
    this.openedAt = 0; // performance.now()
    /** @type {Record<string, (mode: InputMode) => unknown>} */
    this.actions = {
      set: () => this.set(),
      severity: () => this.change({ severity: next(this.mark?.severity) }),
      words: () => find(this.chips, "button", HTMLButtonElement).focus(),
      next: () => this.select((this.chosen + 1) % (this.marks.length || 1)),
      move: () => {
        this.grabs = this.mark !== undefined && !this.grabs;
        this.draw();
      },
      remove: () => this.mark && this.put(this.marks.filter((one) => one !== this.mark), -1),
      hide: () => {
        this.hidden = !this.hidden;
        this.draw();
      },
      undo: () => this.undo(),
      "full-size": () => this.enlarge(),
      comment: () => this.comment.focus(),
      nothing: (mode) => this.marks.length || this.finish([], mode),
      send: (mode) => this.mustMark || this.finish(this.marks.length ? this.marks : null, mode),
      leave: () => this.leave(),
    };
    slot(dialog, "aspects", HTMLElement).append(...this.names.map((name, place) => {
      const button = choice(nameOf(name), () => this.call(name));
      button.append(" ", made("kbd", String(place + 1)));
      return button;
    }));
    slot(dialog, "severities", HTMLElement).append(
      ...SEVERITIES.map(([severity, key]) => choice(words(key), () => this.change({ severity }))),
    );
    dialog.addEventListener("click", (event) => {
      const act = closest(event, "[data-act]")?.dataset.act;
      if (act) this.actions[act](modeOf(event));
    });
    dialog.addEventListener("cancel", () => this.leave());
    this.comment.addEventListener("input", () => this.change({ comment: this.comment.value }));
    document.addEventListener("keydown", (event) => this.key(event), { capture: true });
    this.surface.addEventListener("pointerdown", (event) => this.down(event));
    this.surface.addEventListener("pointermove", (event) => this.drag(event));
    this.surface.addEventListener("pointerup", (event) => this.up(event));
    this.surface.addEventListener("pointercancel", () => this.cancel());
  }

  /** Begins a new look at the image; the marks stay. */
  clear() {
    const fresh = { chosen: -1, grabs: false, hidden: false, cursor: null, anchor: null };
    Object.assign(this, fresh, { gesture: null, past: [], openedAt: performance.now() });
  }

  /** @returns {Mark | undefined} */
  get mark() {
    return this.marks[this.chosen];
  }

  /** @returns {Size} */
  get size() {
    const image = this.item?.loaded[0].element;
    return { width: image?.naturalWidth || 1, height: image?.naturalHeight || 1 };
  }

  /** Whether the answer needs a mark, or the word that there is nothing to mark. */
  get mustMark() {
    return this.asked === "required" && this.answer?.verdict === "bad" && !this.marks.length;
  }

  /**
   * Takes what is on the screen now, and goes on with what was being marked there.
   *
   * @param {Item} item
   */
  take(item) {
    this.dialog.close();
    this.item = item;
    this.marks = item.earlier?.marking?.marks ?? item.earlier?.marks ?? [];
    this.showOver();
    if (item.earlier?.marking?.answer) this.ask(item.earlier.marking.answer);
  }

  /**
   * Whether raters are asked for marks with an answer.
   *
   * @param {Answer} answer
   * @returns {answer is BinaryAnswer}
   */
  asks(answer) {
    if (this.asked === "off" || !this.item?.task_id || answer.kind !== "binary") return false;
    return answer.verdict === "bad" || answer.verdict === "unsafe";
  }

  /** @param {BinaryAnswer} answer */
  ask(answer) {
    if (!this.item) return;
    this.answer = answer;
    this.clear();
    const image = this.item.loaded[0].element.cloneNode();
    this.sheet.replaceChildren(image, drawing([], this.size));
    this.chips.replaceChildren(
      ...wordsOf(this.item.prompt).map((word, place) => {
        const button = choice(word, () => this.toggle(place));
        button.lang = "";
        return button;
      }),
    );
    this.dialog.showModal();
    this.surface.focus();
    this.enlarge(0);
    this.note();
  }

  note() {
    this.changed({ answer: this.dialog.open ? this.answer : null, marks: this.marks });
  }

  /** Goes back to the question; the marks are there when the rater comes again. */
  leave() {
    this.dialog.close();
    this.note();
    this.showOver();
  }

  /**
   * Gives the answer; with null, the rater did not look for what to mark.
   *
   * @param {Mark[] | null} marks
   * @param {InputMode} mode
   */
  finish(marks, mode) {
    this.dialog.close();
    if (this.answer) this.done(marks ? { ...this.answer, marks } : this.answer, mode);
  }

  /**
   * Changes the marks, which can be undone.
   *
   * @param {Mark[]} marks
   * @param {number} chosen
   */
  put(marks, chosen, before = this.marks) {
    if (marks.length > MOST) return;
    this.past.push(before);
    this.marks = marks;
    this.note();
    this.select(chosen);
  }

  undo() {
    this.marks = this.past.pop() ?? this.marks;
    this.note();
    this.select(-1);
  }

  /** @param {number} place */
  select(place) {
    this.grabs &&= place === this.chosen;
    this.chosen = place;
    if (this.mark) this.spoken.textContent = titleOf(this.mark, place);
    this.draw();
  }

  /**
   * Changes the chosen mark.
   *
   * @param {Partial<Mark>} change
   */
  change(change) {
    const { mark, chosen } = this;
    if (mark) this.put(this.marks.map((one) => one === mark ? { ...one, ...change } : one), chosen);
  }

  /**
   * Says what is wrong at the chosen mark, and at the next ones.
   *
   * @param {string} aspect
   */
  call(aspect) {
    this.aspect = aspect;
    this.change({ aspect });
    this.draw();
  }

  /** @param {number} place of a word of the prompt */
  toggle(place) {
    const named = this.mark?.word_indexes ?? [];
    const others = named.filter((one) => one !== place);
    const all = others.length < named.length ? others : [...named, place].sort((a, b) => a - b);
    this.change({ word_indexes: all });
  }

  /** Sets a mark where the keys have moved the cursor. */
  set() {
    const { anchor, cursor, aspect } = this;
    if (this.grabs || !cursor) {
      this.grabs = false;
      this.cursor ??= { x: 0.5, y: 0.5 };
      return this.draw();
    }
    this.anchor = null;
    const place = anchor ? box(anchor, cursor, this.size) : point(cursor);
    this.put([...this.marks, { aspect, ...place }], this.marks.length);
  }

  /**
   * Moves the cursor by a key, and with Shift draws a box; or moves or resizes the grabbed mark.
   *
   * @param {[number, number]} direction
   * @param {KeyboardEvent} event
   */
  step([across, down], { repeat, shiftKey }) {
    const step = (repeat ? HELD_STEP : STEP) / ZOOMS[this.zoom];
    const by = { x: across * step, y: down * step };
    const { mark } = this;
    if (this.grabs && mark) {
      const corner = { x: (mark.x1 ?? mark.x0) + by.x, y: (mark.y1 ?? mark.y0) + by.y };
      return this.change(shiftKey ? box(startOf(mark), corner, this.size) : moved(mark, by));
    }
    const from = this.cursor ?? { x: 0.5, y: 0.5 };
    this.anchor = shiftKey ? this.anchor ?? from : null;
    this.cursor = { x: within(from.x + by.x), y: within(from.y + by.y) };
    this.draw();
    find(this.sheet, ".cursor", SVGElement).scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (!event.isPrimary) return this.cancel(); // two fingers zoom
    if (event.button !== 0 || event.timeStamp - this.openedAt < UNSEEN_MS) return;
    const grip = event.target instanceof SVGElement && event.target.dataset.mark
      ? event.target
      : null;
    const start = this.spotOf(event);
    const isOff = start.x !== within(start.x) || start.y !== within(start.y);
    if (!grip && (isOff || this.marks.length >= MOST)) return;
    const place = grip ? Number(grip.dataset.mark) : this.marks.length;
    const { corner } = grip?.dataset ?? {};
    this.gesture = { event, start, before: this.marks, place, corner, moved: false };
    this.hidden = false;
    this.surface.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  drag(event) {
    const { gesture } = this;
    if (!gesture) return;
    const { clientX, clientY } = gesture.event;
    gesture.moved ||= Math.hypot(event.clientX - clientX, event.clientY - clientY) >= SLACK_PX;
    if (!gesture.moved) return;
    const { before, place } = gesture;
    const made = this.madeBy(gesture, this.spotOf(event));
    this.marks = before[place]
      ? before.map((one, at) => at === place ? made : one)
      : [...before, made];
    this.chosen = place;
    this.draw();
  }

  /**
   * Returns the mark that a pointer has made so far.
   *
   * @param {Gesture} gesture
   * @param {Spot} spot
   * @returns {Mark}
   */
  madeBy({ start, before, place, corner }, spot) {
    const mark = before[place];
    if (!mark) return { aspect: this.aspect, ...box(start, spot, this.size) };
    if (!corner) return moved(mark, { x: spot.x - start.x, y: spot.y - start.y });
    return { ...mark, ...box(opposite(mark, corner), spot, this.size) };
  }

  /** @param {PointerEvent} event */
  up(event) {
    this.drag(event);
    const { gesture, marks } = this;
    if (!gesture) return;
    const { start, before, place, moved } = gesture;
    this.gesture = null;
    if (moved) this.put(marks, place, before);
    else if (before[place]) this.select(place);
    else this.put([...before, { aspect: this.aspect, ...point(start) }], place);
  }

  cancel() {
    if (!this.gesture) return;
    this.marks = this.gesture.before;
    this.gesture = null;
    this.select(-1);
  }

  /**
   * @param {PointerEvent} event
   * @returns {Spot}
   */
  spotOf({ clientX, clientY }) {
    const { width, height } = this.size;
    const matrix = find(this.sheet, "svg", SVGSVGElement).getScreenCTM();
    const spot = new DOMPoint(clientX, clientY).matrixTransform(matrix?.inverse());
    return { x: spot.x / width, y: spot.y / height };
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (closest(event, "textarea")) {
      if (event.key !== "Escape" && (event.key !== "Enter" || event.shiftKey)) return;
      if (event.isComposing) return;
      this.surface.focus();
    } else if (["Enter", " "].includes(event.key) && closest(event, "button")) return;
    else if (!this.press(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * Does what a key stands for; false when it stands for nothing here.
   *
   * @param {KeyboardEvent} event
   */
  press(event) {
    const name = this.names[(digitOf(event) ?? 0) - 1];
    const action = keys.actionOf("marking", event) ?? keys.actionOf("always", event) ?? "";
    const direction = STEPS[action];
    if (direction) this.step(direction, event);
    else if (event.repeat || event.shiftKey) return false;
    else if (name) this.call(name);
    else if (event.key === "Escape" && this.anchor) {
      this.anchor = null;
      this.draw();
    } else if (event.key === "Escape") this.leave();
    else if (this.actions[action]) this.actions[action]("key");
    else return false;
    return true;
  }

  /** Shows the image larger, or at first as large as the screen allows. */
  enlarge(zoom = (this.zoom + 1) % ZOOMS.length) {
    const { x, y } = this.cursor ?? startOf(this.mark);
    const { surface } = this;
    this.zoom = zoom;
    surface.style.setProperty("--zoom", String(ZOOMS[zoom]));
    surface.scrollLeft = x * surface.scrollWidth - surface.clientWidth / 2;
    surface.scrollTop = y * surface.scrollHeight - surface.clientHeight / 2;
    this.draw();
  }

  draw() {
    const { mark, chosen, cursor, anchor, size, dialog } = this;
    const shown = drawing(this.hidden ? [] : this.marks, size, { chosen, zoom: ZOOMS[this.zoom] });
    if (cursor) shown.append(...cursorOf(cursor, anchor, size));
    find(this.sheet, "svg", SVGElement).replaceWith(shown);
    press(slot(dialog, "aspects", HTMLElement), [this.names.indexOf(mark?.aspect ?? this.aspect)]);
    press(slot(dialog, "severities", HTMLElement), [(mark?.severity ?? 0) - 1], !mark);
    press(this.chips, mark?.word_indexes ?? [], !mark);
    this.list.replaceChildren(
      ...this.marks.map((one, place) => choice(titleOf(one, place), () => this.select(place))),
    );
    press(this.list, [chosen]);
    this.comment.disabled = !mark;
    if (this.comment.value !== (mark?.comment ?? "")) this.comment.value = mark?.comment ?? "";
    const off = { nothing: this.marks.length > 0, send: this.mustMark, undo: !this.past.length };
    for (const [act, is] of Object.entries({ ...off, remove: !mark, hide: !this.marks.length })) {
      find(dialog, `[data-act=${act}]`, HTMLButtonElement).disabled = is;
    }
    find(dialog, "[data-act=hide]", HTMLElement).setAttribute("aria-pressed", String(this.hidden));
  }

  /** Shows the marks of an earlier answer over the image, also at full size. */
  showOver() {
    const over = this.marks.length ? [drawing(this.marks, this.size)] : [];
    this.fullSize.over = over;
    for (const old of this.stage.querySelectorAll("svg")) old.remove();
    this.stage.querySelector(".look")?.append(...over.map((one) => one.cloneNode(true)));
  }
}

/** @param {Mark["severity"]} severity */
function next(severity) {
  return /** @type {Mark["severity"]} */ ([1, 2, 3, null][severity ?? 0]);
}

/** @param {string} aspect */
function nameOf(aspect) {
  const key = NAMES[aspect];
  return key ? words(key) : aspect;
}

/**
 * @param {Mark} mark
 * @param {number} place
 */
function titleOf({ aspect }, place) {
  return words("marking.mark", { number: place + 1, aspect: nameOf(aspect) });
}

/**
 * @param {string} label
 * @param {() => void} act
 */
function choice(label, act) {
  const button = made("button", label);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

/**
 * Shows which of the buttons are chosen.
 *
 * @param {HTMLElement} group
 * @param {number[]} places
 */
function press(group, places, disabled = false) {
  findAll(group, "button", HTMLButtonElement).forEach((button, place) => {
    button.setAttribute("aria-pressed", String(places.includes(place)));
    button.disabled = disabled;
  });
}
