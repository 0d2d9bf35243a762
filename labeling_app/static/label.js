// The labeling page: signs in, asks for a task, sends the answer, asks for the next.

import { Refused, call, isPassing } from "./api.js";
import { Binary } from "./binary.js";
import { Stopwatch, isForeign } from "./input.js";
import { Outbox, newId } from "./outbox.js";
import { Ranking } from "./ranking.js";

const RETRY_MS = 2000;
const LOOK_AGAIN_MS = 15000;
const PACE_OF = 20; // last answers that the estimate of the time left rests on

/** Starts the page inside the element that holds page.html. */
export function start(element) {
  const page = new Page(element.querySelector(".pictune"));
  page.enter();
}

class Page {
  constructor(root) {
    this.root = root;
    this.slots = Object.fromEntries([...root.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
    this.watch = new Stopwatch();
    this.times = [];
    this.task = null;
    this.visit = 0; // counts changes of view: what was asked for an older one is dropped when it arrives
    this.kinds = {
      binary: new Binary(root.querySelector("[data-kind=binary]"), (answer, mode) => this.give(answer, mode)),
      ranking: new Ranking(root.querySelector("[data-kind=ranking]"), (answer, mode) => this.give(answer, mode)),
    };
    this.actions = {
      undo: () => this.undo(),
      help: () => this.help(),
      "sign-out": () => this.signOut(),
      again: () => this.next(),
    };
    root.addEventListener("click", (event) => this.actions[event.target.closest("[data-do]")?.dataset.do]?.());
    root.querySelector("form").addEventListener("submit", (event) => this.signIn(event));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  /** Goes on where this browser's rater was, or asks for a name. */
  async enter() {
    await this.attempt(async () => this.welcome(await call("GET", "me")));
  }

  async signIn(event) {
    event.preventDefault();
    const rater = new FormData(event.target).get("rater");
    this.notice("");
    await this.attempt(async () => this.welcome(await call("POST", "login", { rater })));
  }

  async signOut() {
    await this.attempt(async () => {
      await call("POST", "logout");
      this.askName();
    });
  }

  welcome(rater) {
    this.slots.rater.textContent = rater.name;
    this.outbox = new Outbox(rater.rater_id);
    this.times = [];
    return this.next();
  }

  askName() {
    this.view("sign-in");
    this.root.querySelector("form input").focus();
  }

  /** Sends what waits, then shows the next task. */
  async next() {
    const visit = this.leaveTask();
    await this.attempt(async () => {
      await this.send();
      const { task, reason, progress } = await call("POST", "claim", {});
      if (visit !== this.visit) return;
      this.showProgress(progress);
      if (task) await this.show(task);
      else this.rest(reason);
    });
  }

  async show(task) {
    const kind = this.kinds[task.kind];
    this.slots.prompt.textContent = task.prompt;
    for (const part of this.root.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== task.kind;
    this.view("task");
    this.task = task;
    const shown = await kind.show(task.images);
    if (this.task !== task) return;
    if (!shown) this.notice("A picture cannot be loaded. Skip this one, or reload the page.");
    this.watch.start();
  }

  rest(reason) {
    this.slots.reason.textContent = `${reason[0].toUpperCase()}${reason.slice(1)}.`;
    this.view("done");
    const visit = this.visit;
    setTimeout(() => visit === this.visit && this.next(), LOOK_AGAIN_MS);
  }

  /** Takes the rater's answer: into the outbox at once, to the server, and on. */
  give(answer, mode) {
    const time = this.watch.stop();
    this.times = [...this.times, time].slice(-PACE_OF);
    this.outbox.add({ submission_id: newId(), task_id: this.task.task_id, answer, time_on_task_ms: time, input_mode: mode });
    this.notice("");
    this.next();
  }

  async send() {
    if (!this.outbox.keys.length) return;
    this.saved("Saving…");
    const refusals = await this.outbox.flush();
    if (refusals.length) this.notice(`An answer was not accepted: ${refusals.join("; ")}`);
    this.saved(refusals.length ? "" : "Saved ✓");
  }

  async undo() {
    if (this.root.dataset.view === "task" && !this.task) return; // the last answer is still on its way
    this.leaveTask();
    try {
      const { task } = await call("POST", "undo", {});
      this.saved(task ? "Undone: your turn again" : "Nothing to undo");
    } catch {
      this.saved("Undo failed"); // not sent again: if the first one arrived, a second would take back one label more
    }
    await this.next();
  }

  help() {
    if (this.slots.help.open) this.slots.help.close();
    else this.slots.help.showModal();
  }

  key(event) {
    if (isForeign(event)) return;
    const view = this.root.dataset.view;
    const onButton = event.target.closest?.("button, a, summary") && ["Enter", " "].includes(event.key);
    if (onButton || view === "sign-in" || view === "loading") return;
    if (event.key === "?") this.help();
    else if (this.slots.help.open) return;
    else if (event.key.toLowerCase() === "u") this.undo();
    else if (view === "done" && event.key === "Enter") this.next();
    else if (!this.task || !this.kinds[this.task.kind].key(event)) return;
    event.preventDefault();
  }

  /** Ends the present view's claim on what is under way; returns the new visit's number. */
  leaveTask() {
    this.task = null;
    for (const kind of Object.values(this.kinds)) kind.hide();
    this.visit += 1;
    return this.visit;
  }

  /** Does something that needs the server; tries again while it cannot be reached, asks for the name when signed out. */
  async attempt(action) {
    const visit = this.visit;
    for (;;) {
      try {
        await action();
        return;
      } catch (error) {
        if (error instanceof Refused && error.status === 401) return this.askName();
        if (!isPassing(error)) return this.notice(error.message);
        this.saved(this.outbox?.keys.length ? "Not saved yet" : "");
        this.notice("The server cannot be reached. Your answers are kept in this browser and sent as soon as it is back.");
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (visit !== this.visit) return;
    }
  }

  view(name) {
    this.visit += 1;
    this.root.dataset.view = name;
    for (const part of this.root.querySelectorAll("[data-show]")) part.hidden = !part.dataset.show.split(" ").includes(name);
  }

  notice(text) {
    this.slots.notice.textContent = text;
    this.slots.notice.hidden = !text;
  }

  saved(text) {
    this.slots.saved.textContent = text;
  }

  showProgress({ mine, done, total }) {
    this.slots.bar.max = Math.max(total, 1);
    this.slots.bar.value = done;
    this.slots.count.textContent = `${mine} mine · ${done} of ${total}${timeLeft(this.times, total - done)}`;
  }
}

/** The time that the rest takes one rater at the median pace so far; times in milliseconds. */
function timeLeft(times, tasks) {
  if (times.length < 3 || tasks <= 0) return "";
  const median = [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)];
  const minutes = Math.ceil((median * tasks) / 60000);
  return minutes < 90 ? ` · about ${minutes} min left` : ` · about ${Math.round(minutes / 60)} h left`;
}
