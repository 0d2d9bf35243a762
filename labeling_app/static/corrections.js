// @ts-check
// Corrections: undo, the history, and a new answer to an earlier task.

/** @import { Label } from "../interface.d.ts" */
/** @import { Screen } from "./screen.js" */
/** @import { Labeling, PageState } from "./state.js" */
/** @import { Status } from "./status.js" */
/** @import { Work } from "./work.js" */

import { call } from "./api.js";
import { History } from "./history.js";
import { loadTask } from "./images.js";
import { openAgain } from "./kinds.js";
import { words } from "./words.js";

export class Corrections {
  /**
   * @param {HTMLDialogElement} dialog the history's
   * @param {{ state: PageState, screen: Screen, status: Status, work: Work }} parts
   */
  constructor(dialog, { state, screen, status, work }) {
    this.state = state;
    this.screen = screen;
    this.status = status;
    this.work = work;
    this.history = new History(dialog, {
      change: (label) => this.edit(label),
      takeBack: (task) => this.takeBack(task.task_id),
    });
  }

  undo() {
    return this.comeBack(async ({ outbox, queue }) => {
      await this.work.send(outbox);
      // not sent again: if the first one arrived, a second would take back one label more
      const { task, answer } = await call("POST", "undo", {}, { asRater: outbox.raterId });
      const said = words(task ? "undo.done" : "undo.nothing");
      this.status.saved(said);
      this.status.say(said);
      if (!task || !this.state.isAt(queue)) return;
      if (answer) queue.drafts.set(task.task_id, openAgain(answer));
      queue.makeRoom();
      await queue.fetchOne({ first: true, wanted: task.task_id });
      queue.bringFirst(task.task_id); // another fetch may have got it
      this.status.progress(queue.progress);
    }, () => this.status.saved(words("undo.failed")));
  }

  /** @param {string} taskId */
  takeBack(taskId) {
    return this.comeBack(async ({ queue }) => {
      await queue.sendAside();
      return await queue.takeBack(taskId);
    }, () => words("trouble.aside")); // it stays in the list
  }

  /**
   * Shows nothing to answer until the task is there that `fetch` puts first: the next key is meant
   * for it. `fetch` and `failed` may return a trouble to tell.
   *
   * @param {(labeling: Labeling) => Promise<string | void>} fetch
   * @param {() => string | void} failed
   */
  async comeBack(fetch, failed) {
    const { labeling } = this.state;
    if (!labeling || labeling.undoing) return;
    this.state.change({ ...labeling, shown: { view: "waiting" }, undoing: true });
    const trouble = await fetch(labeling).catch(failed);
    const now = this.state.labeling;
    if (now?.queue === labeling.queue) {
      this.state.change({ ...now, undoing: false });
      this.work.present();
      if (trouble) this.status.notice(trouble);
    }
    this.work.goOn();
  }

  async showHistory() {
    const { labeling } = this.state;
    if (!labeling) return;
    const { outbox } = labeling;
    if (this.history.dialog.open) return this.history.dialog.close();
    try {
      await this.work.send(outbox);
      await this.history.show(outbox, () => this.work.goOn());
    } catch {
      this.status.notice(words("trouble.history"));
    }
    this.status.refused(outbox.refused.length);
  }

  /** @param {Label} label */
  async edit(label) {
    const queue = this.state.labeling?.queue;
    if (!queue) return; // signed out meanwhile
    this.screen.hide();
    const loaded = await loadTask(label).catch(() => null);
    if (!this.state.isAt(queue)) return;
    if (!loaded) {
      this.work.present();
      return this.status.notice(words("trouble.images"));
    }
    this.screen.show({
      ...loaded,
      banner: words("task.editing"),
      editing: true,
      earlier: openAgain(label.answer),
      take: (answer, timing) => this.work.keep(label, answer, timing),
    });
  }
}
