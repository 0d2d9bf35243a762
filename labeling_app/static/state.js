// @ts-check
// The state of the page: one of five, each with what belongs to it. Nothing else remembers who is
// signed in, what is on the screen and what is under way.
//
//   loading      the server has not been heard yet
//   signed out   a name is asked for
//   changing     another rater has signed in, in another tab; the server is asked who it is
//   training     a rater answers questions that do not count
//   labeling     a rater works on tasks

/** @import { Item, Unfinished } from "../interface.d.ts" */
/** @import { Outbox } from "./outbox.js" */
/** @import { Queue } from "./queue.js" */

/**
 * A rater at work sees a short wait, something to answer, or that nothing is left to do.
 *
 * @typedef {{ view: "waiting" } | { view: "task", item: Item } | { view: "rest" }} OnScreen
 */

/**
 * A rater's session, from the sign-in to the sign-out, begins with a new outbox, so the outbox
 * identifies the session. It remains after the end: answers of the last rater may still wait in it.
 *
 * @typedef {{ name: "loading", outbox: null }} Loading
 * @typedef {{ name: "signed out", outbox: Outbox | null }} SignedOut
 * @typedef {{ name: "changing", outbox: Outbox | null }} Changing
 * @typedef {{ name: "training", outbox: Outbox, shown: OnScreen }} Training
 */

/**
 * `resuming` is what was on the screen before a reload, until the first tasks are there.
 * `undoing` is whether the server is taking back a label: the next task to show is the undone
 * one.
 *
 * @typedef {{
 *   name: "labeling",
 *   outbox: Outbox,
 *   queue: Queue,
 *   shown: OnScreen,
 *   resuming: Unfinished | null,
 *   undoing: boolean,
 * }} Labeling
 */

/** @typedef {Loading | SignedOut | Changing | Training | Labeling} State */

/** @typedef {"loading" | "sign-in" | OnScreen["view"]} View */

export class PageState {
  /** @type {State} */
  #now = { name: "loading", outbox: null };

  /**
   * `changed(view)` is called after each change with the part of the page that must be shown.
   *
   * @param {(view: View) => void} changed
   */
  constructor(changed) {
    this.changed = changed;
  }

  get now() {
    return this.#now;
  }

  /** @param {State} next */
  change(next) {
    this.#now = next;
    this.changed(this.view);
  }

  /**
   * Shows something else to the same rater; nothing happens when nobody is at work.
   *
   * @param {OnScreen} shown
   */
  show(shown) {
    const { now } = this;
    if (now.name === "training" || now.name === "labeling") this.change({ ...now, shown });
  }

  /** @returns {View} */
  get view() {
    const { now } = this;
    if (now.name === "loading") return "loading";
    if (now.name === "signed out") return "sign-in";
    return now.name === "changing" ? "waiting" : now.shown.view;
  }

  /** The item that the rater can answer now, or null. */
  get item() {
    const { now } = this;
    if (now.name !== "training" && now.name !== "labeling") return null;
    return now.shown.view === "task" ? now.shown.item : null;
  }

  /** The state while a rater is in training, else null. */
  get training() {
    return this.now.name === "training" ? this.now : null;
  }

  /** The state while a rater works on tasks, else null. */
  get labeling() {
    return this.now.name === "labeling" ? this.now : null;
  }

  /**
   * Whether this queue is still the one that is worked on: a session may end during any call.
   *
   * @param {Queue} queue
   */
  isAt(queue) {
    return this.labeling?.queue === queue;
  }
}
