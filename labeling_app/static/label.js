// The labeling page: signs in, shows a task that was fetched ahead, keeps the answer until the server has it, shows the next.

import { Refused, SIGNED_IN, call, isSignedOut } from "./api.js";
import { Binary } from "./binary.js";
import { Guidelines } from "./guidelines.js";
import { History } from "./history.js";
import { Stopwatch, isForeign } from "./input.js";
import { Outbox, newId } from "./outbox.js";
import { loadPictures } from "./pictures.js";
import { Queue } from "./queue.js";
import { Ranking } from "./ranking.js";
import { Reasons } from "./reasons.js";
import { Retry } from "./retry.js";
import { Status } from "./status.js";
import { Training } from "./training.js";

const LOOK_AGAIN_MS = 15000;
const RENEW_MS = 60000;
const LOOK_MS = 10000;

/** Starts the page inside the element that holds page.html. */
export function start(element) {
  new Page(element.querySelector(".pictune")).enter();
}

class Page {
  constructor(root) {
    this.root = root;
    this.slots = Object.fromEntries([...root.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
    this.status = new Status(this.slots);
    this.watch = new Stopwatch();
    this.queue = null; // of a rater who is signed in and trained
    this.item = null; // what is on the screen: a task, a training question or an earlier label
    this.retry = new Retry((is) => this.status.offline(is, this.outbox?.waiting.length));
    this.guidelines = new Guidelines(root, this.slots.panel, this.slots.version);
    this.reasons = new Reasons(this.slots.reasons);
    this.history = new History(this.slots.history, (label) => this.edit(label));
    this.training = new Training(this.slots.feedback, this);
    const answer = (answer, mode) => this.give(answer, mode);
    const ask = (question, chosen, pictures) => this.reasons.ask(question, this.forThisItem(chosen), pictures);
    this.kinds = {
      binary: new Binary(root.querySelector("[data-kind=binary]"), answer, ask),
      ranking: new Ranking(root.querySelector("[data-kind=ranking]"), {
        answer,
        ask,
        say: (text) => this.status.say(text),
        changed: (draft) => this.remember(draft),
      }),
    };
    this.actions = {
      undo: () => this.undo(),
      help: () => toggle(this.slots.help),
      history: () => this.showHistory(),
      guidelines: () => this.guidelines.toggle(),
      comment: () => this.slots.comment.focus(),
      back: () => this.present(),
      "sign-out": () => this.signOut(),
      again: () => this.work(),
      close: (button) => button.closest("dialog").close(),
    };
    this.listen();
  }

  listen() {
    this.root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      this.actions[button?.dataset.do]?.(button);
      if (event.detail) button?.blur(); // a button that was clicked must not take the next Enter
    });
    for (const type of ["pointerdown", "click"]) {
      this.root.addEventListener(type, (event) => this.ignoreTooSoon(event), { capture: true });
    }
    this.root.querySelector("form").addEventListener("submit", (event) => this.signIn(event));
    this.slots.comment.addEventListener("keydown", (event) => {
      if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey && !event.isComposing)) {
        event.preventDefault();
        event.stopPropagation();
        event.target.blur();
      }
    });
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("storage", (event) => {
      // tabs share the cookie: nobody's answer may be sent under the name of another, who has signed in elsewhere
      if (event.key === SIGNED_IN && this.raterId && event.newValue !== this.raterId) this.changeRater();
      const taskId = this.queue && this.outbox.answeredElsewhere(event);
      if (taskId) this.withdraw(taskId);
    });
    setInterval(() => this.renew(), RENEW_MS);
    setInterval(() => this.look(), LOOK_MS / 2);
  }

  // Signing in

  /** Goes on where this browser's rater was, or asks for a name. */
  async enter() {
    const rater = await this.attempt(async () => {
      this.settings = await call("GET", "settings");
      return call("GET", "me");
    });
    if (rater) await this.welcome(rater);
  }

  async signIn(event) {
    event.preventDefault();
    const { rater, password } = Object.fromEntries(new FormData(event.target));
    this.status.notice("");
    try {
      await call("POST", "login", this.slots["password-row"].hidden ? { rater } : { rater, password });
    } catch (error) {
      this.slots["password-row"].hidden &&= !isSignedOut(error); // some raters have a password where others need none
      return this.status.notice(error instanceof Refused ? error.message : "The server cannot be reached. Try again in a moment.");
    }
    event.target.reset();
    await this.enter();
  }

  async signOut() {
    await this.attempt(async () => {
      await call("POST", "logout", {});
      this.signedOut();
    });
  }

  async welcome(rater) {
    this.slots.rater.textContent = rater.name;
    this.slots.admin.hidden = rater.role !== "admin";
    this.raterId = rater.rater_id;
    localStorage.setItem(SIGNED_IN, rater.rater_id);
    this.memory = `pictune.current.${rater.rater_id}`;
    this.outbox = new Outbox(rater.rater_id);
    this.guidelines.showIfNew(rater.rater_id, this.settings.guideline_version);
    this.hideTask();
    const trained = await this.attempt(() => this.training.run());
    if (!trained) return;
    this.queue = new Queue(rater.rater_id, this.outbox);
    this.resuming = JSON.parse(localStorage.getItem(this.memory));
    this.work();
  }

  changeRater() {
    this.queue = null;
    this.hideTask();
    this.enter();
  }

  askName(reason = "") {
    this.queue = null;
    this.hideTask();
    for (const dialog of this.root.querySelectorAll("dialog[open]")) dialog.close();
    this.status.offline(false);
    this.status.notice(reason);
    this.slots["password-row"].hidden = !this.settings.needs_password;
    this.slots.password.required = this.settings.needs_password;
    this.view("sign-in");
    this.root.querySelector("form input").focus();
  }

  signedOut() {
    const waiting = this.queue ? this.outbox.waiting.length : 0;
    const kept = waiting ? " Your last answers are kept in this browser; they are sent when you sign in again." : "";
    this.askName(this.queue ? `You are signed out.${kept}` : "");
  }

  // Tasks

  /** Sends answers and fetches tasks until nothing is left to do; one run at a time. */
  async work() {
    this.moreWork = true;
    this.retry.now();
    if (this.working) return;
    this.working = true;
    while (this.moreWork && this.queue) {
      this.moreWork = false;
      await this.attempt(() => this.sync());
    }
    this.working = false;
  }

  async sync() {
    const { queue } = this;
    if (!queue) return; // signed out meanwhile
    let uncounted = await this.send();
    while (queue.missing) {
      const fetched = await queue.fetchOne();
      uncounted = false;
      this.withdrawReported(queue);
      if (!fetched) break;
      if (queue !== this.queue) return;
      this.status.progress(queue.progress);
      uncounted = await this.send();
      if (!this.resuming) this.presentIfFree();
    }
    if (uncounted) await queue.look();
    if (queue !== this.queue) return;
    this.withdrawReported(queue);
    this.status.progress(queue.progress);
    this.resume();
    this.presentIfFree();
  }

  /** Goes on with the task that was on the screen before a reload, and with what was done of it. */
  resume() {
    if (!this.resuming) return;
    this.queue.bringFirst(this.resuming.task_id);
    if (this.queue.first?.task_id === this.resuming.task_id) this.queue.first.draft = this.resuming.draft;
    this.resuming = null;
  }

  /** Sends what waits; whether there was anything. */
  async send() {
    const { outbox } = this;
    const sends = outbox.waiting.length > 0;
    if (sends) {
      this.status.saved("Saving…");
      await outbox.flush();
      this.status.saved(outbox.refused.length ? "" : "Saved ✓");
    }
    this.status.refused(outbox.refused.length);
    return sends;
  }

  presentIfFree() {
    if (!this.item && !this.undoing && this.root.dataset.view !== "sign-in") this.present();
  }

  /** Shows the first task that is held, or why there is none. */
  present() {
    const task = this.queue.first;
    if (!task) return this.rest();
    this.show({ ...task, earlier: task.draft, take: (answer, timing) => this.keep(task, answer, timing) });
    this.remember(task.draft);
  }

  /** Puts `{kind, prompt, pictures, banner?, earlier?, take}` on the screen; `take(answer, timing)` gets the rater's answer. */
  show(item) {
    this.item = item;
    this.slots.prompt.textContent = item.prompt;
    this.slots.banner.hidden = !item.banner;
    this.slots["banner-text"].textContent = item.banner ?? "";
    this.slots.back.hidden = !item.editing;
    this.slots["comment-row"].hidden = !item.task_id;
    this.slots.comment.value = item.earlier?.comment ?? "";
    for (const part of this.root.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== item.kind;
    this.kinds[item.kind].show(item.pictures, item.earlier);
    this.view("task");
    const broken = item.pictures.some((picture) => picture.broken);
    this.status.notice(broken ? "A picture cannot be shown. Skip this one." : "");
    this.status.say(`${item.banner ?? ""} ${item.kind === "binary" ? "One picture" : `${item.pictures.length} pictures`}: ${item.prompt}`);
    this.watch.start();
  }

  hideTask() {
    this.item = null;
    if (this.reasons.open) this.reasons.close();
    this.view("waiting");
  }

  rest() {
    const { reason, progress } = this.queue;
    this.item = null;
    if (!reason) return this.view("waiting");
    const finished = progress.done >= progress.total;
    this.slots.rest.textContent = finished ? "All done. Thank you!" : reason.includes("paused") ? "Paused for now" : "Nothing to do right now";
    this.slots.reason.textContent = `${reason[0].toUpperCase()}${reason.slice(1)}.`;
    this.view("rest");
    clearTimeout(this.lookAgain);
    this.lookAgain = setTimeout(() => this.root.dataset.view === "rest" && this.work(), LOOK_AGAIN_MS);
  }

  /** Takes the rater's answer to what is on the screen. */
  give(answer, mode) {
    const comment = this.slots.comment.value.trim();
    this.item.take(comment ? { ...answer, comment } : answer, { ...this.watch.read(), input_mode: mode });
  }

  /** Into the outbox at once, to the server in the background, and on to the next task. */
  keep(task, answer, timing) {
    try {
      this.outbox.add({ submission_id: newId(), task_id: task.task_id, answer, ...timing }, task.prompt);
    } catch {
      return this.status.notice("This browser's storage is full or switched off: the answer was not taken. Free some space and answer again.");
    }
    this.status.saved("Saving…");
    this.queue.drop(task.task_id);
    this.present();
    this.work();
  }

  /** Takes away a task that this tab may hold or show: another tab has answered it, or an image of it was reported. */
  withdraw(taskId) {
    const shown = this.item?.task_id === taskId && !this.item.editing;
    this.queue.drop(taskId);
    if (shown) this.hideTask();
    this.work();
  }

  /** Keeps a half-made answer to the first task, for after a reload or a look at an earlier label. */
  remember(draft) {
    const task = this.queue?.first;
    if (!task || task.task_id !== this.item.task_id) return;
    task.draft = draft;
    try {
      localStorage.setItem(this.memory, JSON.stringify({ task_id: task.task_id, draft }));
    } catch {
      // the storage is full: the answers need it more
    }
  }

  withdrawReported(queue) {
    if (queue !== this.queue) return;
    for (const taskId of queue.withdrawn.splice(0)) this.withdraw(taskId);
  }

  /** While a rater looks at a task, others may report its images or those of the next ones. */
  async look() {
    const { queue } = this;
    if (!queue || this.working || !this.watch.wasActive(RENEW_MS)) return;
    if (performance.now() - queue.heardAt < LOOK_MS) return; // who answers quickly hears with each claim
    await queue.look().catch(() => {}); // the next answer tells whether the server can be reached
    if (queue !== this.queue) return;
    this.withdrawReported(queue);
    this.status.progress(queue.progress);
  }

  async renew() {
    if (!this.queue || !this.watch.wasActive(RENEW_MS)) return;
    await this.queue.renew().catch(() => {}); // a late answer is accepted too
    this.work();
  }

  /** Calls back only while the same item is on the screen. */
  forThisItem(act) {
    const { item } = this;
    return (...values) => item === this.item && act(...values);
  }

  // Second thoughts

  async undo() {
    if (!this.queue || this.undoing) return;
    const asRater = this.raterId;
    this.undoing = true;
    this.hideTask(); // the next key is meant for the task that comes back
    try {
      await this.send();
      const { task } = await call("POST", "undo", {}, { asRater });
      this.status.saved(task ? "Undone: your turn again" : "Nothing to undo");
      this.status.say(this.slots.saved.textContent);
      if (task) {
        this.queue.makeRoom();
        await this.queue.fetchOne({ first: true });
        this.queue.bringFirst(task.task_id); // another fetch may have got it
        this.status.progress(this.queue.progress);
      }
    } catch {
      this.status.saved("Undo failed"); // not sent again: if the first one arrived, a second would take back one label more
    }
    this.undoing = false;
    if (this.queue) this.present();
    this.work();
  }

  async showHistory() {
    if (!this.queue) return;
    if (this.slots.history.open) return this.slots.history.close();
    try {
      await this.send();
      await this.history.show(this.outbox, () => this.work());
    } catch {
      this.status.notice("The history cannot be shown right now: the server cannot be reached.");
    }
    this.status.refused(this.outbox.refused.length);
  }

  async edit(label) {
    this.hideTask();
    const pictures = await loadPictures(label.images).catch(() => null);
    if (!pictures) {
      this.present();
      return this.status.notice("The pictures cannot be loaded right now: the server cannot be reached.");
    }
    const banner = "Changing an earlier answer.";
    this.show({ ...label, pictures, banner, editing: true, earlier: label.answer, take: (answer, timing) => this.keep(label, answer, timing) });
  }

  // Keys

  key(event) {
    if (isForeign(event)) return;
    const onButton = event.target.closest?.("button, a, summary") && ["Enter", " "].includes(event.key);
    if (onButton || ["sign-in", "loading"].includes(this.root.dataset.view)) return;
    if (this.press(event)) event.preventDefault();
  }

  /** Does what a key stands for; false when it stands for nothing here. */
  press(event) {
    const letters = { "?": "help", h: "history", g: "guidelines", u: "undo", c: "comment" };
    const letter = letters[event.key.toLowerCase()];
    if (this.reasons.open) return this.reasons.key(event);
    const modal = this.root.querySelector("dialog[open]");
    if (modal && modal !== this.slots[letter]) return false;
    if (letter === "comment" && !this.item) return false;
    if (letter) this.actions[letter]();
    else if (event.key === "Escape" && this.guidelines.open) this.guidelines.toggle();
    else if (event.key === "Escape" && this.item?.editing) this.present();
    else if (event.key === "Enter" && this.root.dataset.view === "rest") this.work();
    else return this.item !== null && !this.watch.isTooSoon(event) && this.kinds[this.item.kind].key(event);
    return true;
  }

  /** A second click that was meant for the item before must not answer one that nobody has seen yet. */
  ignoreTooSoon(event) {
    if (!event.target.closest("[data-kind]") || !this.watch.isTooSoon(event)) return;
    event.stopPropagation();
    event.target.closest("button")?.blur();
  }

  // The server

  /** Does something that needs the server; tries again while it cannot be reached, asks for the name when signed out. */
  async attempt(action) {
    try {
      return await this.retry.run(action);
    } catch (error) {
      if (isSignedOut(error)) return this.signedOut();
      return this.status.notice(error.message);
    }
  }

  view(name) {
    this.root.dataset.view = name;
    for (const part of this.root.querySelectorAll("[data-show]")) part.hidden = !part.dataset.show.split(" ").includes(name);
  }
}

function toggle(dialog) {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
