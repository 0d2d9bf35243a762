// @ts-check
// The labeling page: puts its parts together, and hands clicks and keys to them.

import { Corrections } from "./corrections.js";
import { closest, find, slot } from "./dom.js";
import { Guidelines } from "./guidelines.js";
import { isForeign } from "./input.js";
import { Retry } from "./retry.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { PageState } from "./state.js";
import { Status } from "./status.js";
import { Training } from "./training.js";
import { Work } from "./work.js";

/** @type {Partial<Record<string, string>>} */
const LETTERS = {
  "?": "help",
  h: "history",
  g: "guidelines",
  u: "undo",
  c: "comment",
  l: "later",
};

/**
 * Starts the page inside the element that holds page.html.
 *
 * @param {HTMLElement} element
 */
export function start(element) {
  new Page(find(element, ".pictune", HTMLElement)).session.enter();
}

class Page {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.state = new PageState((view) => this.screen.draw(view));
    this.status = new Status(root);
    this.guidelines = new Guidelines(root);
    const { state, status, guidelines } = this;
    const retry = new Retry((is) => status.offline(is, state.now.outbox?.waiting.length));
    this.screen = new Screen(root, {
      state,
      status,
      changed: (draft) => this.work.remember(draft),
    });
    const { screen } = this;
    this.session = new Session(root, {
      state,
      status,
      retry,
      guidelines,
      training: new Training(slot(root, "feedback", HTMLDialogElement), { state, screen }),
      begin: (outbox) => this.work.begin(outbox),
    });
    this.work = new Work({
      state,
      screen,
      status,
      retry,
      attempt: (action) => this.session.attempt(action),
    });
    const { work } = this;
    /** @type {Record<string, HTMLDialogElement>} */
    this.dialogs = {
      help: slot(root, "help", HTMLDialogElement),
      history: slot(root, "history", HTMLDialogElement),
    };
    const parts = { state, screen, status, work };
    this.corrections = new Corrections(this.dialogs.history, parts);
    /** @type {Record<string, (button?: HTMLElement) => unknown>} */
    this.actions = {
      undo: () => this.corrections.undo(),
      help: () => toggle(this.dialogs.help),
      history: () => this.corrections.showHistory(),
      guidelines: () => guidelines.toggle(),
      comment: () => screen.comment.focus(),
      back: () => work.present(),
      "sign-out": () => this.session.signOut(),
      again: () => work.again(),
      later: () => work.later(),
      close: (button) => button?.closest("dialog")?.close(),
    };
    this.listen();
  }

  listen() {
    this.root.addEventListener("click", (event) => {
      const button = closest(event, "button");
      if (!button) return;
      this.actions[button.dataset.do ?? ""]?.(button);
      if (event.detail) button.blur(); // a button that was clicked must not take the next Enter
    });
    for (const type of ["pointerdown", "click"]) {
      const ignore = this.screen.ignoreTooSoon.bind(this.screen);
      this.root.addEventListener(type, ignore, { capture: true });
    }
    this.screen.comment.addEventListener("keydown", leaveComment);
    document.addEventListener("keydown", (event) => this.key(event));
    globalThis.addEventListener("storage", (event) => {
      this.session.followOtherTab(event);
      const taskId = this.state.labeling?.outbox.answeredElsewhere(event);
      if (taskId) this.work.withdraw(taskId);
    });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (isForeign(event)) return;
    const presses = ["Enter", " "].includes(event.key);
    if (presses && closest(event, "button, a, summary")) return;
    if (["sign-in", "loading"].includes(this.state.view)) return;
    if (this.press(event)) event.preventDefault();
  }

  /**
   * Does what a key stands for; false when it stands for nothing here.
   *
   * @param {KeyboardEvent} event
   */
  press(event) {
    const { screen, state: { item } } = this;
    if (this.screen.reasons.open) return this.screen.reasons.key(event);
    const letter = LETTERS[event.key.toLowerCase()];
    const modal = this.root.querySelector("dialog[open]");
    if (modal && modal !== (letter && this.dialogs[letter])) return false;
    if (letter === "comment" && !item) return false;
    if (letter === "later" && (!item?.task_id || screen.watch.isTooSoon(event))) return false;
    if (letter) this.actions[letter]();
    else if (event.key === "Escape" && this.guidelines.open) this.guidelines.toggle();
    else if (event.key === "Escape" && item?.editing) this.work.present();
    else if (event.key === "Enter" && this.state.view === "rest") this.work.again();
    else return this.screen.key(event);
    return true;
  }
}

/**
 * Enter and Escape leave the comment, and mean nothing else there.
 *
 * @param {KeyboardEvent} event
 */
function leaveComment(event) {
  const enter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
  if (event.key !== "Escape" && !enter) return;
  event.preventDefault();
  event.stopPropagation();
  closest(event, "textarea")?.blur();
}

/** @param {HTMLDialogElement} dialog */
function toggle(dialog) {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
