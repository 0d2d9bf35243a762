// @ts-check
// Work on tasks: shows a task that was fetched ahead, keeps the answer until the server has it,
// shows the next.

/** @import { Answer, Draft, Task, Timing } from "../interface.d.ts" */
/** @import { Kept } from "./kept.js" */
/** @import { Outbox } from "./outbox.js" */
/** @import { Retry } from "./retry.js" */
/** @import { Screen } from "./screen.js" */
/** @import { PageState } from "./state.js" */
/** @import { Status } from "./status.js" */

import { newId } from "./outbox.js";
import { Queue } from "./queue.js";
import { language, words } from "./words.js";

const LOOK_AGAIN_MS = 15000;
const RENEW_MS = 60000;
const LOOK_MS = 10000;

export class Work {
  /**
   * `attempt(action)` does something that needs the server, as soon as that can be reached.
   *
   * @param {{
   *   state: PageState,
   *   screen: Screen,
   *   status: Status,
   *   retry: Retry,
   *   attempt: (action: () => Promise<void>) => Promise<void>,
   * }} parts
   */
  constructor({ state, screen, status, retry, attempt }) {
    this.state = state;
    this.screen = screen;
    this.status = status;
    this.retry = retry;
    this.loop = new Loop(async () => {
      if (state.labeling) await attempt(() => this.sync());
    });
    this.lookAgain = 0; // a timer
    setInterval(() => this.renew(), RENEW_MS);
    setInterval(() => this.look(), LOOK_MS / 2);
  }

  /**
   * @param {Outbox} outbox
   * @param {Kept | null} held what this device has kept where the server cannot be reached
   */
  async begin(outbox, held) {
    const queue = new Queue(outbox.raterId, outbox);
    this.state.change({
      name: "labeling",
      outbox,
      queue,
      shown: { view: "waiting" },
      resuming: JSON.parse(localStorage.getItem(keyOfUnfinished(outbox)) ?? "null"),
      undoing: false,
    });
    if (held) {
      await queue.restore(held);
      if (!this.state.isAt(queue)) return;
      this.status.progress(queue.progress);
      this.resume();
      this.presentIfFree();
    }
    this.goOn();
  }

  /** Sends answers and fetches tasks until nothing is left to do; one run at a time. */
  goOn() {
    this.retry.now();
    return this.loop.ask();
  }

  async sync() {
    const { labeling } = this.state;
    if (!labeling) return; // signed out meanwhile
    const { queue } = labeling;
    let uncounted = await this.send(labeling.outbox);
    await queue.sendAside();
    while (queue.missing) {
      const wanted = this.state.labeling?.resuming?.task_id;
      const fetched = await queue.fetchOne({ wanted });
      uncounted = false;
      this.withdrawReported(queue);
      if (!fetched) break;
      if (!this.state.isAt(queue)) return;
      this.status.progress(queue.progress);
      uncounted = await this.send(labeling.outbox);
      if (wanted && wanted === queue.first?.task_id) this.resume();
      if (!this.state.labeling?.resuming) this.presentIfFree();
    }
    if (uncounted) await queue.look();
    if (!this.state.isAt(queue)) return;
    await queue.release();
    this.withdrawReported(queue);
    this.status.progress(queue.progress);
    this.resume();
    this.presentIfFree();
    const aside = await queue.countAside();
    if (this.state.isAt(queue)) this.status.asideCount(aside);
  }

  /** Goes on with the task that was on the screen before a reload, and with what was done of it. */
  resume() {
    const { labeling } = this.state;
    if (!labeling?.resuming) return;
    const { queue, resuming } = labeling;
    queue.bringFirst(resuming.task_id);
    if (queue.first?.task_id === resuming.task_id) queue.first.draft = resuming.draft;
    this.state.change({ ...labeling, resuming: null });
  }

  /**
   * Sends what waits; returns whether there was anything.
   *
   * @param {Outbox} outbox
   */
  async send(outbox) {
    const sends = outbox.waiting.length > 0;
    if (sends) {
      this.status.saved(words("saved.saving"));
      await outbox.flush();
      this.status.saved(outbox.refused.length ? "" : words("saved.saved"));
    }
    this.status.refused(outbox.refused.length);
    return sends;
  }

  presentIfFree() {
    const { labeling } = this.state;
    if (!labeling || labeling.undoing) return;
    if (labeling.shown.view !== "task") this.present();
  }

  /** Shows the first task that is held, or why there is none. */
  present() {
    const { labeling } = this.state;
    if (!labeling) return;
    const task = labeling.queue.first;
    if (!task) return this.rest(labeling.queue);
    this.screen.show({
      ...task,
      banner: task.was_aside ? words("task.was_aside") : "",
      earlier: task.draft,
      take: (answer, timing) => this.keep(task, answer, timing),
    });
    this.remember(task.draft);
  }

  /** @param {Queue} queue */
  rest({ reason, progress }) {
    if (!reason) return this.screen.hide();
    const finished = progress !== null && progress.done >= progress.total;
    const paused = reason === "campaign_paused" || reason === "rater_paused";
    const title = finished ? "rest.done" : paused ? "rest.paused" : "rest.nothing";
    this.screen.rest(words(title), words(`rest.${reason}`));
    clearTimeout(this.lookAgain);
    this.lookAgain = setTimeout(() => this.state.view === "rest" && this.goOn(), LOOK_AGAIN_MS);
  }

  /**
   * Puts an answer into the outbox at once, sends it in the background, and goes on to the next
   * task.
   *
   * @param {Task} task
   * @param {Answer} answer
   * @param {Timing} timing
   */
  keep(task, answer, timing) {
    const { labeling } = this.state;
    if (!labeling) return;
    const { task_id, prompt } = task;
    try {
      const submission = { submission_id: newId(), task_id, answer, language: language() };
      labeling.outbox.add({ ...submission, ...timing }, prompt);
    } catch {
      return this.status.notice(words("trouble.storage"));
    }
    this.status.saved(words("saved.saving"));
    labeling.queue.drop(task_id);
    this.present();
    this.goOn();
  }

  /** Puts the task on the screen aside: it comes again after the others. */
  later() {
    const { labeling, item } = this.state;
    if (!labeling || !item?.task_id || item.editing) return;
    labeling.queue.putAside(item.task_id);
    this.status.saved(words("saved.aside"));
    this.status.say(words("saved.aside"));
    this.present();
    this.goOn();
  }

  /**
   * Takes away a task that this tab may hold or show: another tab has answered it, or an image of
   * it was reported.
   *
   * @param {string} taskId
   */
  withdraw(taskId) {
    const { item, labeling } = this.state;
    labeling?.queue.drop(taskId);
    if (item?.task_id === taskId && !item.editing) this.screen.hide();
    this.goOn();
  }

  /**
   * Keeps a half-made answer to the first task, for after a reload or a look at an earlier label.
   *
   * @param {Answer | Draft} [draft]
   */
  remember(draft) {
    const { item, labeling } = this.state;
    const task = labeling?.queue.first;
    if (!labeling || !task || task.task_id !== item?.task_id) return;
    task.draft = draft;
    const unfinished = JSON.stringify({ task_id: task.task_id, draft });
    try {
      localStorage.setItem(keyOfUnfinished(labeling.outbox), unfinished);
    } catch {
      // the storage is full: the answers need it more
    }
  }

  /** @param {Queue} queue */
  withdrawReported(queue) {
    if (!this.state.isAt(queue)) return;
    for (const taskId of queue.withdrawn.splice(0)) this.withdraw(taskId);
  }

  /** While a rater looks at a task, others may report its images or images of the next tasks. */
  async look() {
    const queue = this.state.labeling?.queue;
    if (!queue || this.loop.busy || !this.screen.watch.wasActive(RENEW_MS)) return;
    if (performance.now() - queue.heardAt < LOOK_MS) return; // each claim of a quick rater says it
    await queue.look().catch(() => {}); // the next answer tells whether the server can be reached
    if (!this.state.isAt(queue)) return;
    this.withdrawReported(queue);
    this.status.progress(queue.progress);
    if (queue.surplus.length) this.goOn();
  }

  async renew() {
    const queue = this.state.labeling?.queue;
    if (!queue || !this.screen.watch.wasActive(RENEW_MS)) return;
    await queue.renew().catch(() => {}); // a late answer is accepted too
    this.goOn();
  }
}

/** @param {Outbox} outbox */
function keyOfUnfinished(outbox) {
  return `pictune.current.${outbox.raterId}`;
}

/** Runs an action whenever it is asked for, one run at a time. */
class Loop {
  /** @param {() => Promise<unknown>} action */
  constructor(action) {
    this.action = action;
    /** @type {"idle" | "running" | "asked again"} */
    this.state = "idle";
  }

  get busy() {
    return this.state !== "idle";
  }

  /** Runs the action now, or once more after the present run. */
  async ask() {
    if (this.busy) {
      this.state = "asked again";
      return;
    }
    do {
      this.state = "running";
      await this.action();
    } while (this.askedAgain);
    this.state = "idle";
  }

  get askedAgain() {
    return this.state === "asked again";
  }
}
