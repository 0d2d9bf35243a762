// @ts-check
// The screen of a rater at work: shows a task, a training question or an earlier label and takes the
// answer to it, or says that there is nothing to do.

/** @import { Answer, Around, Draft, InputMode, Item, OnPage } from "../interface.d.ts" */
/** @import { ReasonChosen } from "../interface.d.ts" */
/** @import { PageState, View } from "./state.js" */
/** @import { Status } from "./status.js" */

import { closest, find, findAll, slot } from "./dom.js";
import { FullSize } from "./full_size.js";
import { Stopwatch } from "./input.js";
import { isAnswer, KINDS, shownAs } from "./kinds.js";
import { Marking } from "./marking.js";
import { Reasons } from "./reasons.js";
import { words } from "./words.js";

export class Screen {
  /**
   * `changed(draft)` is called after each change of a half-made answer.
   *
   * @param {HTMLElement} page
   * @param {{
   *   state: PageState,
   *   status: Status,
   *   changed: (draft: Draft) => void,
   * }} parts
   */
  constructor(page, { state, status, changed }) {
    this.page = page;
    this.state = state;
    this.status = status;
    this.watch = new Stopwatch();
    this.task = find(page, "[data-show=task]", HTMLElement);
    this.prompt = slot(page, "prompt", HTMLElement);
    this.banner = slot(page, "banner", HTMLElement);
    this.bannerText = slot(page, "banner-text", HTMLElement);
    this.back = slot(page, "back", HTMLElement);
    this.commentRow = slot(page, "comment-row", HTMLElement);
    this.comment = slot(page, "comment", HTMLTextAreaElement);
    this.restTitle = slot(page, "rest", HTMLElement);
    this.restReason = slot(page, "reason", HTMLElement);
    this.later = slot(page, "later", HTMLElement);
    this.reasons = new Reasons(slot(page, "reasons", HTMLDialogElement));
    /** @type {Pick<Draft, "ranks" | "marking">} */
    this.half = {}; // of a half-made answer
    const note = () => changed({ ...this.half, comment: this.comment.value });
    this.comment.addEventListener("input", note);
    this.fullSize = new FullSize(slot(page, "full-size", HTMLDialogElement));
    this.marking = new Marking(page, {
      fullSize: this.fullSize,
      changed: (marking) => {
        this.half = { marking };
        note();
      },
      done: (answer, mode) => this.send(answer, mode),
    });
    /** @type {Around} */
    const around = {
      answer: (answer, mode) => this.give(answer, mode),
      ask: (question, chosen, images) =>
        this.reasons.ask(question, this.forThisItem(chosen), images),
      say: (text) => status.say(text),
      changed: ({ ranks }) => {
        this.half = { ranks };
        note();
      },
    };
    /** @type {Map<string, OnPage>} */
    this.parts = new Map(
      Object.entries(KINDS).map(([kind, { Part }]) => {
        const root = find(page, `[data-kind=${kind}]`, HTMLElement);
        return [kind, new Part(root, this.fullSize, around)];
      }),
    );
  }

  /** @param {Item} item */
  partOf(item) {
    const part = this.parts.get(shownAs(item));
    if (!part) throw new Error(`no part of the page shows a ${item.kind}`);
    return part;
  }

  /**
   * Shows the parts of the page that belong to a view, and no others.
   *
   * @param {View} view
   */
  draw(view) {
    if (view !== "task") {
      this.reasons.dialog.close();
      this.marking.dialog.close();
      this.fullSize.dialog.close();
    }
    this.page.dataset.view = view;
    for (const part of findAll(this.page, "[data-show]", HTMLElement)) {
      part.hidden = !part.dataset.show?.split(" ").includes(view);
    }
  }

  /**
   * Puts something on the screen that can be answered.
   *
   * @param {Item} item
   */
  show(item) {
    const { prompt, loaded, banner = "" } = item;
    const kind = shownAs(item);
    this.prompt.textContent = prompt;
    this.prompt.hidden = !prompt; // raters are not told it on some axes
    this.page.dataset.kindShown = kind;
    this.banner.hidden = !banner;
    this.bannerText.textContent = banner;
    this.back.hidden = !item.editing;
    this.commentRow.hidden = !item.task_id;
    this.later.hidden = item.editing === true;
    this.comment.value = item.earlier?.comment ?? "";
    this.half = { ranks: item.earlier?.ranks, marking: item.earlier?.marking };
    for (const part of findAll(this.page, "[data-kind]", HTMLElement)) {
      part.hidden = part.dataset.kind !== kind;
    }
    this.partOf(item).show(loaded, item.earlier, item.question);
    this.state.show({ view: "task", item });
    const broken = loaded.some((image) => image.broken);
    this.status.notice(broken ? words("trouble.broken") : "");
    const what = words("task.said", { count: loaded.length });
    const asked = item.question ? slot(this.page, "question", HTMLElement).textContent ?? "" : "";
    this.status.say(`${banner} ${what}: ${prompt} ${asked}`.trim());
    this.watch.start();
    this.marking.take(item);
  }

  /** Takes away what can be answered. */
  hide() {
    this.state.show({ view: "waiting" });
  }

  /**
   * Says that there is nothing to do, and why.
   *
   * @param {string} title
   * @param {string} reason
   */
  rest(title, reason) {
    this.restTitle.textContent = title;
    this.restReason.textContent = reason;
    this.state.show({ view: "rest" });
  }

  /**
   * Takes the rater's answer to what is on the screen; some wait for marks.
   *
   * @param {Answer} answer
   * @param {InputMode} mode
   */
  give(answer, mode) {
    if (this.marking.asks(answer)) this.marking.ask(answer);
    else this.send(answer, mode);
  }

  /**
   * @param {Answer} answer
   * @param {InputMode} mode
   */
  send(answer, mode) {
    const comment = this.comment.value.trim();
    const whole = comment ? { ...answer, comment } : answer;
    this.state.item?.take(whole, { ...this.watch.read(), input_mode: mode });
  }

  /**
   * Returns a function that calls `act` only while the same item is on the screen.
   *
   * @param {ReasonChosen} act
   * @returns {ReasonChosen}
   */
  forThisItem(act) {
    const { item } = this.state;
    return (reason, unsafe) => item === this.state.item && act(reason, unsafe);
  }

  /**
   * Answers what is on the screen by a key; false when the key stands for nothing there. A key that
   * is no answer, such as an arrow in a ranking, works at once.
   *
   * @param {KeyboardEvent} event
   */
  key(event) {
    const { item } = this.state;
    if (!item) return false;
    if (this.watch.isTooSoon(event) && isAnswer(shownAs(item), event)) return this.blink();
    return this.partOf(item).key(event);
  }

  /** Shows that an answer was not taken, since it came too soon. */
  blink() {
    this.task.animate({ opacity: [0.3, 1] }, 300);
    return true;
  }

  /** Shows the images of the task at full size. */
  look() {
    const { item } = this.state;
    if (item) this.partOf(item).look();
  }

  /**
   * Ignores a click on an item that nobody has seen yet: a second click that was meant for the item
   * before must not answer it.
   *
   * @param {Event} event
   */
  ignoreTooSoon(event) {
    if (!closest(event, "[data-kind], [data-do=later]") || !this.watch.isTooSoon(event)) return;
    event.stopPropagation();
    if (event.type === "click") this.blink();
    closest(event, "button")?.blur();
  }
}
