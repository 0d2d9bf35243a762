// @ts-check
// The page's messages about itself: saved or not, in trouble or not, how far.

/** @import { Progress } from "../interface.d.ts" */

import { slot } from "./dom.js";
import { words } from "./words.js";

export class Status {
  /** @param {HTMLElement} page */
  constructor(page) {
    this.noticeLine = slot(page, "notice", HTMLElement);
    this.spokenLine = slot(page, "spoken", HTMLElement);
    this.savedLine = slot(page, "saved", HTMLElement);
    this.offlineLine = slot(page, "offline", HTMLElement);
    this.renewedLine = slot(page, "renewed", HTMLElement);
    this.refusedLine = slot(page, "refused", HTMLElement);
    this.refusedText = slot(page, "refused-text", HTMLElement);
    this.bar = slot(page, "bar", HTMLProgressElement);
    this.count = slot(page, "count", HTMLElement);
    this.aside = slot(page, "aside-count", HTMLButtonElement);
  }

  /**
   * Shows something that the rater must read; empty takes it away.
   *
   * @param {string} text
   */
  notice(text) {
    this.noticeLine.textContent = text;
    this.noticeLine.hidden = !text;
  }

  /**
   * Lets screen readers speak a text that is not shown. The same words twice are spoken twice.
   *
   * @param {string} text
   */
  say(text) {
    this.spokenLine.textContent = this.spokenLine.textContent === text ? `${text}\u00a0` : text;
  }

  /** @param {string} text */
  saved(text) {
    this.savedLine.textContent = text;
  }

  /**
   * Says whether the server cannot be reached; `waiting` answers are kept meanwhile.
   *
   * @param {boolean} is
   */
  offline(is, waiting = 0) {
    this.offlineLine.hidden = !is;
    if (!is) return;
    const kept = waiting ? ` ${words("trouble.kept", { count: waiting })}` : "";
    this.offlineLine.textContent = words("trouble.unreachable") + kept;
    this.saved(waiting ? words("saved.not_yet") : "");
  }

  /** Says that the server has a new version of the page. */
  renewed() {
    this.renewedLine.hidden = false;
  }

  /** @param {number} answers */
  refused(answers) {
    this.refusedLine.hidden = !answers;
    this.refusedText.textContent = words("trouble.refused", { count: answers });
  }

  /** @param {number} tasks */
  asideCount(tasks) {
    this.aside.hidden = !tasks;
    this.aside.textContent = words("progress.aside", { number: tasks });
  }

  /** @param {Progress | null} progress */
  progress(progress) {
    if (!progress) return; // nothing was heard yet
    const { mine, done, total } = progress;
    this.bar.max = Math.max(total, 1);
    this.bar.value = done;
    this.count.textContent = words("progress.labels", { mine, done, total });
  }
}
