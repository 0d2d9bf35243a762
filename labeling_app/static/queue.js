// The tasks that this page holds: the one on the screen, then those fetched ahead with their pictures.

import { Refused, call } from "./api.js";
import { loadPictures } from "./pictures.js";

const HELD = 3;
const MOST_EXCEPT = 30; // as the interface has it

export class Queue {
  /** The tasks of one rater; those with answers in the outbox are not asked for again. */
  constructor(raterId, outbox) {
    this.raterId = raterId;
    this.outbox = outbox;
    this.tasks = [];
    this.droppedAt = new Map(); // task id to performance.now()
    this.progress = null;
    this.reason = null; // why nothing more was given, null while something was
    this.withdrawn = []; // tasks held here that must not be shown: an image of them was reported
    this.heardAt = 0; // performance.now() when the server last said which
  }

  get first() {
    return this.tasks[0];
  }

  get missing() {
    return this.tasks.length < HELD;
  }

  /** Asks for one more task and puts it last, or first; false when there is none for now. */
  async fetchOne({ first = false } = {}) {
    const askedAt = performance.now();
    // to the server, a task is held until its answer has arrived: it would be given again
    const known = [...this.tasks, ...this.outbox.waiting.map((entry) => entry.submission)].map(({ task_id }) => task_id);
    const except = [...new Set(known)].slice(0, MOST_EXCEPT);
    const { task, reason, progress, withdrawn = [] } = await call("POST", "claim", { except }, { asRater: this.raterId });
    this.hear(progress, withdrawn);
    if (!task) {
      this.reason = reason;
      return false;
    }
    task.pictures = await loadPictures(task.images);
    if (this.droppedAt.get(task.task_id) >= askedAt) return true; // another tab has answered it meanwhile
    if (this.tasks.some((held) => held.task_id === task.task_id)) return false; // two calls have crossed
    if (first) this.tasks.unshift(task);
    else this.tasks.push(task);
    return true;
  }

  /** Asks how far the labeling is, and which tasks must not be shown any more. */
  async look() {
    const held = this.tasks.slice(0, HELD).map((task) => `held=${encodeURIComponent(task.task_id)}`);
    const { withdrawn = [], ...progress } = await call("GET", `progress?${held.join("&")}`, undefined, { asRater: this.raterId });
    this.hear(progress, withdrawn);
  }

  hear(progress, withdrawn) {
    this.progress = progress;
    this.withdrawn = withdrawn;
    this.heardAt = performance.now();
  }

  /** Takes a task out: it is answered, or no longer held. */
  drop(taskId) {
    this.tasks = this.tasks.filter((task) => task.task_id !== taskId);
    this.droppedAt.set(taskId, performance.now());
    this.reason = null; // there may be more now
  }

  /** Puts a task first, if it is held. */
  bringFirst(taskId) {
    const task = this.tasks.find((held) => held.task_id === taskId);
    if (task) this.tasks = [task, ...this.tasks.filter((held) => held !== task)];
  }

  /** Makes room for a task that must come first: what is dropped is handed out again later. */
  makeRoom() {
    this.tasks = this.tasks.slice(0, HELD - 1);
  }

  /** Holds on to the tasks; one fetched ahead whose hold ran out is dropped, the one on the screen may be answered late. */
  async renew() {
    for (const task of [...this.tasks]) {
      try {
        await call("POST", "leases", { task_id: task.task_id }, { asRater: this.raterId });
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 404) throw error;
        if (task !== this.first) this.drop(task.task_id);
      }
    }
  }
}
