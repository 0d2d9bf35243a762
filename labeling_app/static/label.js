// @ts-check
// The labeling page: puts its parts together, and hands clicks and keys to them.

import { choices } from "./choices.js";
import { Corrections } from "./corrections.js";
import { closest, find, findAll, slot } from "./dom.js";
import { Guidelines } from "./guidelines.js";
import { isForeign } from "./input.js";
import { keys } from "./keys.js";
import { openOffline } from "./offline.js";
import { Retry } from "./retry.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";
import { PageState } from "./state.js";
import { Status } from "./status.js";
import { Training } from "./training.js";
import { Work } from "./work.js";
import { choose, fill, followRater, loadWords } from "./words.js";

/**
 * Starts the page inside the element that holds page.html.
 *
 * @param {HTMLElement} element
 */
export function start(element) {
  const root = find(element, ".pictune", HTMLElement);
  loadWords();
  fill(root);
  new Page(root).session.enter();
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
      welcome: (raterId) => {
        followRater(raterId);
        keys.takeFrom(raterId);
        choices.takeFrom(raterId);
        this.settings.draw();
      },
      begin: (outbox, held) => this.work.begin(outbox, held),
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
      settings: slot(root, "settings", HTMLDialogElement),
    };
    this.settings = new Settings(root);
    this.corrections = new Corrections(this.dialogs.history, { state, screen, status, work });
    /** @type {Record<string, (button?: HTMLElement) => unknown>} */
    this.actions = {
      undo: () => this.corrections.undo(),
      help: () => toggle(this.dialogs.help),
      history: () => this.corrections.showHistory(),
      settings: () => toggle(this.dialogs.settings),
      guidelines: () => guidelines.toggle(),
      comment: () => screen.comment.focus(),
      back: () => work.present(),
      "sign-out": () => this.session.signOut(),
      again: () => work.goOn(),
      reload: () => location.reload(),
      later: () => work.later(),
      close: (button) => button?.closest("dialog")?.close(),
    };
    this.listen();
    openOffline(() => status.renewed());
  }

  listen() {
    this.root.addEventListener("click", (event) => {
      const button = closest(event, "button");
      if (!button) return;
      this.actions[button.dataset.do ?? ""]?.(button);
    });
    this.root.addEventListener("click", leaveClicked, { capture: true });
    for (const type of ["pointerdown", "touchstart", "click"]) {
      const ignore = this.screen.ignoreTooSoon.bind(this.screen);
      this.root.addEventListener(type, ignore, { capture: true, passive: true });
    }
    this.screen.comment.addEventListener("keydown", leaveComment);
    for (const select of findAll(this.root, "[data-do=language]", HTMLSelectElement)) {
      select.addEventListener("change", () => choose(select.value, this.session.raterId));
    }
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
    if (this.screen.reasons.dialog.open) return this.screen.reasons.key(event);
    const always = keys.actionOf("always", event);
    const modal = this.root.querySelector("dialog[open]");
    if (modal && modal !== (always && this.dialogs[always])) return false;
    if (["comment", "full-size"].includes(always ?? "") && !item) return false;
    if (always === "later" && !item?.task_id) return false;
    if (always === "full-size") screen.look();
    else if (always) this.actions[always]();
    else if (event.key === "Escape" && this.guidelines.open) this.guidelines.toggle();
    else if (event.key === "Escape" && item?.editing) this.work.present();
    else if (event.key === "Enter" && this.state.view === "rest") this.work.goOn();
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

/**
 * Takes the focus from what was clicked, which must not take the next Enter or space: before
 * anything else, since a dialog that the click opens gives the focus back when it closes.
 *
 * @param {MouseEvent} event
 */
function leaveClicked(event) {
  if (event.detail) closest(event, "button")?.blur();
}

/** @param {HTMLDialogElement} dialog */
function toggle(dialog) {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
