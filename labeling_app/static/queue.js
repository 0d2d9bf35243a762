// @ts-check
// The tasks that this page holds: the one on the screen, then those fetched ahead with their
// images.

/** @import { HeldTask, Progress } from "../interface.d.ts" */
/** @import { Kept } from "./kept.js" */
/** @import { Outbox } from "./outbox.js" */

import { call, isPassing, isSignedOut, Refused } from "./api.js";
import { loadTask } from "./images.js";
import { keepTasks } from "./kept.js";
import { words } from "./words.js";

const MOST_EXCEPT = 30; // as the interface has it

export class Queue {
  /** @type {HeldTask[]} */
  #tasks = [];

  /**
   * The tasks of one rater; those with answers in the outbox are not asked for again.
   *
   * @param {string} raterId
   * @param {Outbox} outbox
   */
  constructor(raterId, outbox) {
    this.raterId = raterId;
    this.outbox = outbox;
    /** @type {Map<string, number>} */
    this.droppedAt = new Map(); // task id to performance.now()
    /** @type {Progress | null} */
    this.progress = null;
    /** @type {string | null} */
    this.reason = null; // code of why nothing more was given, null while something was
    /** @type {string[]} */
    this.withdrawn = []; // tasks held here that must not be shown: an image of them was reported
    this.heardAt = 0; // performance.now() when the server last said which
    /** @type {string[]} */
    this.aside = []; // tasks put aside here that the server still keeps for this page
    /** @type {number | null} */
    this.countedAside = null; // null where the server must be asked how many are put aside
    /** @type {Map<string, HeldTask["draft"]>} */
    this.drafts = new Map(); // of tasks put aside, and of undone ones
  }

  get tasks() {
    return this.#tasks;
  }

  /** This device keeps them, for an opening without a network. */
  set tasks(tasks) {
    this.#tasks = tasks;
    keepTasks(this.raterId, tasks, this.progress);
  }

  /**
   * Takes what this device has kept, as far as its images are there.
   *
   * @param {Kept} held
   */
  async restore({ progress, tasks }) {
    const answered = new Set(this.outbox.waiting.map(({ submission }) => submission.task_id));
    const open = tasks.filter(({ task_id }) => !answered.has(task_id));
    const loaded = await Promise.all(open.map((task) => loadTask(task).catch(() => null)));
    this.progress = progress;
    this.tasks = loaded.filter((task) => task !== null);
  }

  /** @returns {HeldTask | undefined} */
  get first() {
    return this.tasks[0];
  }

  /**
   * How many tasks to hold: ten, so that as many can be answered without a connection, and fewer
   * when few are left for all raters. The server says it with each answer.
   */
  get hold() {
    return this.progress?.hold ?? 2; // so few until it was heard
  }

  get missing() {
    return this.tasks.length < this.hold;
  }

  /** The tasks that others may have: more than the server wants this page to hold. */
  get surplus() {
    return this.tasks.slice(this.hold).filter((task) => !task.draft);
  }

  /**
   * Asks for one more task and puts it last, or first; false when there is none for now. `wanted`
   * is the id of a held task to be given before others.
   *
   * @param {{ first?: boolean, wanted?: string }} [options]
   */
  async fetchOne({ first = false, wanted } = {}) {
    const asRater = this.raterId;
    const askedAt = performance.now();
    // to the server, a task is held until its answer has arrived: it would be handed out again
    const answered = this.outbox.waiting.map((entry) => entry.submission);
    const known = [...this.tasks, ...answered].map(({ task_id }) => task_id);
    const except = [...new Set([...known, ...this.aside])].slice(0, MOST_EXCEPT);
    const claimed = await call("POST", "claim", { except, wanted }, { asRater });
    this.hear(claimed.progress, claimed.withdrawn);
    if (!claimed.task) {
      this.reason = claimed.code;
      return false;
    }
    if (claimed.task.was_aside) this.countedAside = null;
    const task = await loadTask(claimed.task);
    const droppedAt = this.droppedAt.get(task.task_id) ?? -Infinity;
    if (droppedAt >= askedAt) return true; // another tab has answered it meanwhile
    if (this.tasks.some((held) => held.task_id === task.task_id)) return false; // two calls crossed
    const one = this.withDraft(task);
    this.tasks = first ? [one, ...this.tasks] : [...this.tasks, one];
    return true;
  }

  /**
   * Puts a task aside, with what was done of it.
   *
   * @param {string} taskId
   */
  putAside(taskId) {
    this.drafts.set(taskId, this.tasks.find((held) => held.task_id === taskId)?.draft);
    this.aside.push(taskId);
    this.drop(taskId);
  }

  /** Tells the server what was put aside. */
  async sendAside() {
    for (const task_id of [...this.aside]) {
      try {
        await call("POST", "aside", { task_id }, { asRater: this.raterId });
      } catch (error) {
        if (isPassing(error) || isSignedOut(error)) throw error; // else another tab has answered it
      }
      this.aside = this.aside.filter((other) => other !== task_id);
      this.countedAside = null;
    }
  }

  /** Returns how many tasks are put aside, which the server is asked only when that may differ. */
  async countAside() {
    if (this.countedAside === null) {
      const { tasks } = await call("GET", "aside", undefined, { asRater: this.raterId });
      this.countedAside = tasks.length;
    }
    return this.countedAside;
  }

  /**
   * Puts a task first that was put aside; returns the reason when it is not to be had any more.
   *
   * @param {string} taskId
   */
  async takeBack(taskId) {
    const body = { except: [], aside: taskId };
    const claimed = await call("POST", "claim", body, { asRater: this.raterId });
    this.hear(claimed.progress);
    this.countedAside = null;
    if (!claimed.task) return words(`rest.${claimed.code}`);
    const task = this.withDraft(await loadTask(claimed.task));
    this.makeRoom();
    this.tasks = [task, ...this.tasks.filter((held) => held.task_id !== taskId)];
    return "";
  }

  /** @param {HeldTask} task */
  withDraft(task) {
    return { ...task, draft: this.drafts.get(task.task_id) };
  }

  /** Asks how far the labeling is, and which tasks must not be shown any more. */
  async look() {
    const asRater = this.raterId;
    const ids = this.tasks.slice(0, MOST_EXCEPT).map((task) => encodeURIComponent(task.task_id));
    const held = ids.map((id) => `held=${id}`).join("&");
    const answer = await call("GET", `progress?${held}`, undefined, { asRater });
    const { withdrawn, ...progress } = answer;
    this.hear(progress, withdrawn);
  }

  /**
   * @param {Progress} progress
   * @param {string[]} [withdrawn]
   */
  hear(progress, withdrawn = []) {
    this.progress = progress;
    this.withdrawn = withdrawn;
    this.heardAt = performance.now();
  }

  /**
   * Takes a task out: it is answered, or no longer held.
   *
   * @param {string} taskId
   */
  drop(taskId) {
    this.tasks = this.tasks.filter((task) => task.task_id !== taskId);
    this.droppedAt.set(taskId, performance.now());
    this.reason = null; // there may be more now
  }

  /** @param {string} taskId */
  bringFirst(taskId) {
    const task = this.tasks.find((held) => held.task_id === taskId);
    if (task) this.tasks = [task, ...this.tasks.filter((held) => held !== task)];
  }

  /** Makes room for a task that must come first: what is dropped is handed out again later. */
  makeRoom() {
    this.tasks = this.tasks.slice(0, this.hold - 1);
  }

  /** Lets others have the surplus. */
  async release() {
    for (const { task_id } of this.surplus) {
      this.drop(task_id);
      await call("POST", "release", { task_id }, { asRater: this.raterId });
    }
  }

  /**
   * Renews the leases of the tasks. One fetched ahead whose lease ran out is dropped; the one on
   * the screen may be answered late.
   */
  async renew() {
    this.countedAside = null; // others may have answered one
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
