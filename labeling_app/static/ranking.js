// @ts-check
// Several images of one prompt: ranks from 1, ties, can't judge.

/** @import { Answer, Around, Draft, ImageAddress, InputMode } from "../interface.d.ts" */
/** @import { KindOnPage, LoadedImage, Rank, RankingAnswer } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */

import { choices } from "./choices.js";
import { closest, find, findAll, made, slot } from "./dom.js";
import { makeDraggable } from "./drag.js";
import { digitOf, modeOf } from "./input.js";
import { capOf, keys } from "./keys.js";
import { drawnColumns, Room } from "./room.js";
import { words } from "./words.js";

export class Ranking {
  /**
   * @param {HTMLElement} root
   * @param {FullSize} fullSize
   * @param {Around} around
   */
  constructor(root, fullSize, { answer, ask, say, changed }) {
    this.fullSize = fullSize;
    this.answer = answer;
    this.ask = ask;
    this.say = say;
    this.changed = changed;
    /** @type {LoadedImage[]} */
    this.images = [];
    /** @type {(Rank | undefined)[]} */
    this.ranks = []; // by place; undefined has no rank yet
    /** @type {number[]} */
    this.given = []; // the places that have a rank, in the order that they were ranked in
    this.framed = 0;
    /** @type {InputMode | undefined} */
    this.mode = undefined; // of the last rank
    this.cards = slot(root, "cards", HTMLElement);
    this.room = new Room(this.cards);
    this.hint = slot(root, "ranking-hint", HTMLElement);
    this.shelf = slot(root, "shelf", HTMLElement);
    this.unfinished = slot(root, "unfinished", HTMLElement);
    this.submitButton = find(root, "[data-do=submit]", HTMLButtonElement);
    this.submitButton.addEventListener("click", (event) => this.submit(modeOf(event)));
    const clear = find(root, "[data-do=clear]", HTMLButtonElement);
    clear.addEventListener("click", () => this.clear());
    const skip = find(root, "[data-do=skip]", HTMLButtonElement);
    skip.addEventListener("click", (event) => this.skip(modeOf(event)));
    this.cards.addEventListener("click", (event) => this.pick(placeOf(event), modeOf(event)));
    this.cards.addEventListener("focusin", (event) => this.frame(placeOf(event)));
    this.shelf.addEventListener("click", (event) => {
      const rank = closest(event, "[data-rank]");
      if (rank) this.rank(this.framed, Number(rank.dataset.rank) || null, modeOf(event));
    });
    fullSize.opensFrom(root, () => this.look());
    makeDraggable(root, (place, rank, mode) => this.rank(place, rank || null, mode));
  }

  /**
   * Shows loaded images in the order given, and the ranks of an earlier or half-made answer where
   * there is one.
   *
   * @param {LoadedImage[]} images
   * @param {Answer | Draft} [earlier]
   */
  show(images, earlier) {
    this.images = images;
    this.ranks = images.map(({ image_id }) => earlier?.ranks?.[image_id]);
    this.given = [...this.ranks.keys()].filter((place) => this.ranks[place] !== undefined);
    this.framed = Math.max(0, this.ranks.indexOf(undefined));
    this.cards.replaceChildren(...images.map(card));
    this.shelf.replaceChildren(...images.map((_, place) => shelfRank(place + 1)), shelfRank(0));
    this.saysUnfinished("");
    this.draw();
    this.room.fill(images);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const digit = digitOf(event);
    const action = keys.actionOf("ranking", event);
    const columns = drawnColumns(this.cards);
    /** @type {Record<string, () => void>} */
    const actions = {
      unjudged: () => this.rank(this.framed, null, "key"),
      previous: () => this.frame(this.framed - 1),
      next: () => this.frame(this.framed + 1),
      above: () => this.frame(this.framed - columns),
      below: () => this.frame(this.framed + columns),
      "take-back": () => this.takeBack(),
      clear: () => this.clear(),
      submit: () => this.submit("key"),
      skip: () => this.skip("key"),
    };
    if (digit) this.rank(this.framed, digit, "key");
    else if (action) actions[action]();
    else return false;
    return true;
  }

  /**
   * Ranks the image at a place (null is can't judge) and moves the frame to the next one without a
   * rank. The last missing rank sends the ranking where the rater has chosen that.
   *
   * @param {number} place
   * @param {Rank} rank
   * @param {InputMode} mode
   */
  rank(place, rank, mode) {
    if (rank !== null && rank > this.images.length) return;
    this.mode = mode;
    const isNew = this.ranks[place] === undefined;
    this.ranks[place] = rank;
    this.given = [...this.given.filter((other) => other !== place), place];
    const places = this.images.map((_, index) => (place + 1 + index) % this.images.length);
    this.framed = places.find((other) => this.ranks[other] === undefined) ?? place;
    this.change();
    if (isNew && this.complete && choices.has("at_once")) return this.submit(mode);
    const left = this.images.length - this.given.length;
    const next = left
      ? words("ranking.left", { count: left })
      : words("ranking.enter", { key: capOf(keys.of("ranking", "submit")[0]) });
    this.say(`${this.nameOf(place)}. ${next}`);
  }

  /**
   * Gives a clicked image the next free rank, or none again.
   *
   * @param {number | undefined} place
   * @param {InputMode} mode
   */
  pick(place, mode) {
    if (place === undefined) return;
    if (this.ranks[place] !== undefined) return this.unrank(place);
    let rank = 1;
    while (this.ranks.includes(rank)) rank += 1;
    this.rank(place, rank, mode);
  }

  /** @param {number} place */
  unrank(place) {
    this.ranks[place] = undefined;
    this.given = this.given.filter((other) => other !== place);
    this.framed = place;
    this.change();
    this.say(this.nameOf(place));
  }

  takeBack() {
    const last = this.given.at(-1);
    if (last !== undefined) this.unrank(last);
  }

  clear() {
    this.ranks.fill(undefined);
    this.given = [];
    this.framed = 0;
    this.change();
    this.say(words("ranking.cleared"));
  }

  /** @param {number | undefined} place */
  frame(place) {
    if (place === undefined || !(place in this.images) || place === this.framed) return;
    this.framed = place;
    this.draw();
    this.say(this.nameOf(place));
  }

  get complete() {
    return !this.ranks.includes(undefined);
  }

  /** @param {InputMode} mode */
  submit(mode) {
    if (this.complete) {
      this.answer(this.answerOf(this.ranks), this.mode ?? mode);
      return;
    }
    const left = this.images.length - this.given.length;
    const text = words("ranking.unfinished", { count: left });
    this.saysUnfinished(text);
    this.say(text);
  }

  /**
   * Says what the ranking lacks, in the place of the hint; empty takes it away.
   *
   * @param {string} text
   */
  saysUnfinished(text) {
    this.unfinished.textContent = text;
    this.unfinished.hidden = !text;
    this.hint.hidden = Boolean(text);
  }

  /** Shows the framed image at full size. */
  look() {
    const names = this.images.map((_, place) => this.nameOf(place));
    this.fullSize.show(this.images.map(({ element }) => element), names, this.framed);
  }

  /** @param {InputMode} mode */
  skip(mode) {
    const unranked = this.answerOf(this.images.map(() => null));
    this.ask("skip_several", (reason, unsafe) => {
      this.answer({ ...unranked, reason, unsafe }, mode);
    }, this.images);
  }

  /**
   * @param {(Rank | undefined)[]} ranks
   * @returns {RankingAnswer}
   */
  answerOf(ranks) {
    /** @type {Record<string, Rank>} */
    const given = {};
    for (const [place, { image_id }] of this.images.entries()) {
      const rank = ranks[place];
      if (rank !== undefined) given[image_id] = rank;
    }
    return { kind: "ranking", ranks: given };
  }

  /** @param {number} place */
  nameOf(place) {
    const name = words("task.image_number", { number: place + 1 });
    const rank = this.ranks[place];
    if (rank === undefined) return words("ranking.without", { name });
    if (rank === null) return words("ranking.unjudged", { name });
    const tied = this.ranks.filter((other) => other === rank).length > 1;
    return words(tied ? "ranking.tied" : "ranking.ranked", { name, rank });
  }

  change() {
    this.saysUnfinished("");
    this.draw();
    this.changed(this.answerOf(this.ranks));
  }

  draw() {
    for (const [place, card] of [...this.cards.children].entries()) {
      const rank = this.ranks[place];
      card.classList.toggle("framed", place === this.framed);
      card.classList.toggle("ranked", rank !== undefined);
      find(card, ".badge", HTMLElement).textContent = rank === undefined ? "" : String(rank ?? "?");
      find(card, "button", HTMLElement).setAttribute("aria-label", this.nameOf(place));
    }
    for (const spot of findAll(this.shelf, "[data-rank]", HTMLElement)) {
      this.drawRank(spot, Number(spot.dataset.rank) || null);
    }
    this.submitButton.disabled = !this.complete;
  }

  /**
   * @param {HTMLElement} spot
   * @param {Rank} rank
   */
  drawRank(spot, rank) {
    const places = [...this.ranks.keys()].filter((place) => this.ranks[place] === rank);
    const number = this.framed + 1;
    const name = rank === null
      ? words("ranking.give_none", { number })
      : words("ranking.give", { rank, number });
    const images = places.map((place) => place + 1).join(", ");
    spot.setAttribute("aria-label", images ? words("ranking.now", { name, images }) : name);
    spot.classList.toggle("tie", rank !== null && places.length > 1);
    const thumbs = places.map((place) => thumb(this.images[place].element, place));
    find(spot, ".thumbs", HTMLElement).replaceChildren(...thumbs);
  }
}

/** @param {Event} event */
function placeOf(event) {
  const place = closest(event, "[data-place]")?.dataset.place;
  return place === undefined ? undefined : Number(place);
}

/**
 * @param {LoadedImage} image
 * @param {number} place
 */
function card({ element }, place) {
  const item = made("li", "", "card");
  const button = made("button", "", "image");
  button.type = "button";
  button.dataset.place = String(place);
  const grip = made("span", "⠿", "grip");
  grip.setAttribute("aria-hidden", "true");
  button.append(element, made("span", "", "badge"), grip);
  item.append(button);
  return item;
}

/** @param {number} rank */
function shelfRank(rank) {
  const spot = made("button", "", "rank");
  spot.type = "button";
  spot.dataset.rank = String(rank);
  spot.append(made("span", String(rank || "?"), "number"), made("span", "", "thumbs"));
  return spot;
}

/**
 * @param {HTMLImageElement} element
 * @param {number} place
 */
function thumb(element, place) {
  const small = /** @type {HTMLImageElement} */ (element.cloneNode());
  small.classList.add("grip");
  small.dataset.place = String(place);
  return small;
}

/** Actions that give no rank. */
const NO_ANSWERS = new Set(["previous", "next", "above", "below", "take-back", "clear"]);

/** @param {RankingAnswer} answer */
const isSkip = ({ ranks }) => Object.values(ranks).every((rank) => rank === null);

/** @type {KindOnPage} */
export const ranking = {
  Part: Ranking,
  /**
   * Returns the ranks; without the images in their order, it is just called a ranking.
   *
   * @param {RankingAnswer} answer
   * @param {ImageAddress[]} images
   */
  said(answer, images) {
    if (isSkip(answer)) return words("said.skip");
    const shown = images.map(({ image_id }) => answer.ranks[image_id] ?? "?");
    return words("said.ranks", { ranks: shown.join(" ") }).trim();
  },
  /**
   * A ranking that was skipped begins without ranks, so that typing them moves the frame on.
   *
   * @param {RankingAnswer} answer
   */
  openAgain: (answer) => isSkip(answer) ? { ...answer, ranks: {} } : answer,
  isAnswer: (action) => !NO_ANSWERS.has(action),
  /** Two images are answered like a comparison, by one key. */
  shownAs: (images) => images.length === 2 ? "comparison" : "ranking",
};
