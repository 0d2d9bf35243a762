// @ts-check
// Corrections: undo, the history, and a new answer to an earlier task.

/** @import { Label } from "../interface.d.ts" */
/** @import { Screen } from "./screen.js" */
/** @import { PageState } from "./state.js" */
/** @import { Status } from "./status.js" */
/** @import { Work } from "./work.js" */

import { call } from "./api.js";
import { History } from "./history.js";
import { loadTask } from "./images.js";

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
    this.history = new History(dialog, (label) => this.edit(label));
  }

  async undo() {
    const { labeling } = this.state;
    if (!labeling || labeling.undoing) return;
    const { outbox, queue } = labeling;
    // the next key is meant for the task that comes back
    this.state.change({ ...labeling, shown: { view: "waiting" }, undoing: true });
    try {
      await this.work.send(outbox);
      const { task } = await call("POST", "undo", {}, { asRater: outbox.raterId });
      this.status.saved(task ? "Undone: your turn again" : "Nothing to undo");
      this.status.say(this.status.savedText);
      if (task && this.state.isAt(queue)) {
        queue.makeRoom();
        await queue.fetchOne({ first: true, wanted: task.task_id });
        queue.bringFirst(task.task_id); // another fetch may have got it
        this.status.progress(queue.progress);
      }
    } catch {
      // not sent again: if the first one arrived, a second would take back one label more
      this.status.saved("Undo failed");
    }
    const { labeling: after } = this.state;
    if (after?.queue === queue) {
      this.state.change({ ...after, undoing: false });
      this.work.present();
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
      this.status.notice("The history cannot be shown right now: the server cannot be reached.");
    }
    this.status.refused(outbox.refused.length);
  }

  /**
   * Asks for a new answer to an earlier task.
   *
   * @param {Label} label
   */
  async edit(label) {
    const queue = this.state.labeling?.queue;
    if (!queue) return; // signed out meanwhile
    this.screen.hide();
    const loaded = await loadTask(label).catch(() => null);
    if (!this.state.isAt(queue)) return;
    if (!loaded) {
      this.work.present();
      return this.status.notice(
        "The pictures cannot be loaded right now: the server cannot be reached.",
      );
    }
    this.screen.show({
      ...loaded,
      banner: "Changing an earlier answer.",
      editing: true,
      earlier: label.answer,
      take: (answer, timing) => this.work.keep(label, answer, timing),
    });
  }
}
