// @ts-check
// Two images of one prompt: which is better; or one image: how many things are in it.

/** @import { Answer, AskReason, ComparisonAnswer, GiveAnswer } from "../interface.d.ts" */
/** @import { InputMode, LoadedImage, LoadedQuestion } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */
/** @import { Key } from "./words.js" */

import { closest, find, findAll, slot } from "./dom.js";
import { digitOf, modeOf } from "./input.js";
import { keys } from "./keys.js";
import { words } from "./words.js";

export class Comparison {
  /**
   * `answer(answer, mode)` is called with each answer, `ask(question, chosen, images)` for the
   * reason of a skip, `say(text)` with what screen readers should speak.
   *
   * @param {HTMLElement} root
   * @param {FullSize} fullSize
   * @param {{ answer: GiveAnswer, ask: AskReason, say: (text: string) => void }} calls
   */
  constructor(root, fullSize, { answer, ask, say }) {
    this.root = root;
    this.fullSize = fullSize;
    this.answer = answer;
    this.ask = ask;
    this.say = say;
    /** @type {LoadedImage[]} */
    this.images = [];
    /** @type {LoadedImage | null} */
    this.reference = null;
    this.counts = false; // whether things are counted
    this.inFive = false; // whether much better is told from slightly better
    this.words = slot(root, "question", HTMLElement);
    this.text = slot(root, "long-text", HTMLElement);
    this.pair = slot(root, "pair", HTMLElement);
    this.referenceFrame = slot(root, "reference", HTMLElement);
    this.sides = slot(root, "sides", HTMLElement);
    this.steps = slot(root, "steps", HTMLElement);
    this.choices = findAll(root, "[data-outcome]", HTMLButtonElement);
    this.numbers = slot(root, "numbers", HTMLElement);
    for (const button of this.choices) {
      button.addEventListener("click", (event) => this.choose(button, modeOf(event)));
    }
    this.numbers.addEventListener("click", (event) => {
      const number = closest(event, "[data-count]")?.dataset.count;
      if (number !== undefined) this.giveCount(Number(number), modeOf(event));
    });
    const skip = find(root, "[data-do=skip]", HTMLButtonElement);
    skip.addEventListener("click", (event) => this.skip(modeOf(event)));
    const look = find(root, "[data-do=full-size]", HTMLButtonElement);
    look.addEventListener("click", () => this.look(0));
    root.addEventListener("click", (event) => {
      const place = closest(event, "[data-look]")?.dataset.look;
      if (place !== undefined) this.look(Number(place));
    });
  }

  /**
   * Shows loaded images, the first on the left, with the words of the question, and an earlier
   * answer where there is one.
   *
   * @param {LoadedImage[]} images
   * @param {Answer} [earlier]
   * @param {LoadedQuestion} [question]
   */
  show(images, earlier, question) {
    this.images = images;
    this.reference = question?.loadedReference ?? null;
    this.counts = question?.axis === "count";
    this.inFive = question?.steps === 5;
    this.words.innerHTML = question?.html ?? ""; // of Markdown, without any HTML of its own
    this.text.textContent = question?.text ?? "";
    this.text.hidden = !question?.text;
    this.root.classList.toggle("counting", this.counts);
    this.root.classList.toggle("in-five", this.inFive);
    this.pair.replaceChildren(...images.map(frame));
    this.referenceFrame.hidden = !this.reference;
    const beside = this.reference ? [frame(this.reference, images.length)] : [];
    find(this.referenceFrame, "div", HTMLElement).replaceChildren(...beside);
    const broken = images.some((image) => image.broken);
    this.sides.hidden = this.counts || this.inFive;
    this.steps.hidden = !this.inFive;
    for (const button of this.choices) {
      button.disabled = broken;
      mark(button, earlier?.outcome && this.isOf(button, earlier));
    }
    this.numbers.hidden = !this.counts;
    for (const button of findAll(this.numbers, "button", HTMLButtonElement)) {
      button.disabled = broken;
      mark(button, earlier?.outcome && String(earlier.count) === button.dataset.count);
    }
  }

  /**
   * Returns whether a button stands for this answer.
   *
   * @param {HTMLButtonElement} button
   * @param {ComparisonAnswer} answer
   */
  isOf(button, { outcome, preferred, strength }) {
    const side = this.images[0].image_id === preferred ? "left" : "right";
    const chosen = outcome === "preferred" ? side : outcome;
    return button.dataset.outcome === chosen && button.dataset.strength === strength;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const digit = digitOf(event);
    if (this.counts && digit !== null) return this.countByKey(digit);
    if (this.inFive && digit !== null) return this.chooseByKey(digit);
    const action = keys.actionOf("comparison", event);
    if (action === "skip") this.skip("key");
    else if (action === "full-size") this.look(0);
    else if (action && !this.counts) this.give(action, "key");
    else return false;
    return true;
  }

  /**
   * A digit is the count, and 0 is ten or more; an image with none of it has a button alone.
   *
   * @param {number} digit
   */
  countByKey(digit) {
    this.giveCount(digit || 10, "key");
    return true;
  }

  /**
   * In five steps a digit is a place among the buttons, from 1.
   *
   * @param {number} digit
   */
  chooseByKey(digit) {
    const button = findAll(this.steps, "button", HTMLButtonElement)[digit - 1];
    if (button) this.choose(button, "key");
    return button !== undefined;
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {InputMode} mode
   */
  choose({ dataset }, mode) {
    const strength = dataset.strength === "much" ? "much" : "slightly";
    this.give(dataset.outcome ?? "", mode, strength);
  }

  /**
   * Gives an answer; where steps are told apart a side alone is slightly better.
   *
   * @param {string} outcome
   * @param {InputMode} mode
   * @param {"slightly" | "much"} [strength]
   */
  give(outcome, mode, strength = "slightly") {
    if (this.images.some((image) => image.broken)) return;
    if (outcome === "left" || outcome === "right") {
      const preferred = this.images[outcome === "left" ? 0 : 1].image_id;
      const degree = this.inFive ? { strength } : {};
      this.answer({ outcome: "preferred", preferred, ...degree }, mode);
    } else if (outcome === "tie" || outcome === "both_bad") this.answer({ outcome }, mode);
  }

  /**
   * @param {number} count
   * @param {InputMode} mode
   */
  giveCount(count, mode) {
    if (!this.images.some((image) => image.broken)) this.answer({ outcome: "count", count }, mode);
  }

  /** @param {InputMode} mode */
  skip(mode) {
    this.ask("skip_several", (reason, unsafe) => {
      if (unsafe?.length) this.answer({ outcome: "unsafe", reason, unsafe }, mode);
      else this.answer({ outcome: "skip", reason }, mode);
    }, this.images);
  }

  /** @param {number} place */
  look(place) {
    const all = this.reference ? [...this.images, this.reference] : this.images;
    const names = all.map((image, at) => {
      if (image === this.reference) return words("full_size.reference");
      return this.images.length === 1 ? "" : words(SIDES[at]);
    });
    this.fullSize.show(all.map(({ element }) => element), names, place);
  }
}

/** @type {Key[]} */
const SIDES = ["full_size.first", "full_size.second"];

/**
 * @param {HTMLButtonElement} button
 * @param {unknown} chosen
 */
function mark(button, chosen) {
  if (chosen) button.setAttribute("aria-pressed", "true");
  else button.removeAttribute("aria-pressed");
}

/**
 * Returns a button that shows the image, and at a click the whole of it.
 *
 * @param {LoadedImage} image
 * @param {number} place
 */
function frame({ element }, place) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "look";
  button.dataset.look = String(place);
  button.setAttribute("aria-label", words("comparison.look", { name: element.alt }));
  button.append(element);
  return button;
}
