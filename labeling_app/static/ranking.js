// Several pictures of one prompt: ranks from 1, ties, can't judge.

import { makeDraggable } from "./drag.js";
import { digitOf, modeOf } from "./input.js";

export class Ranking {
  /**
   * `answer(answer, mode)` is called with the ranks of a submitted ranking, `ask(question, chosen, pictures)` for the reason of a skip,
   * `say(text)` with what screen readers should speak, `changed(ranks)` after each change.
   */
  constructor(root, { answer, ask, say, changed }) {
    Object.assign(this, { answer, ask, say, changed });
    this.cards = root.querySelector("[data-slot=cards]");
    this.shelf = root.querySelector("[data-slot=shelf]");
    this.buttons = Object.fromEntries([...root.querySelectorAll("[data-do]")].map((button) => [button.dataset.do, button]));
    this.buttons.submit.addEventListener("click", (event) => this.submit(modeOf(event)));
    this.buttons.clear.addEventListener("click", () => this.clear());
    this.buttons.skip.addEventListener("click", (event) => this.skip(modeOf(event)));
    this.cards.addEventListener("click", (event) => this.pick(placeOf(event), modeOf(event)));
    this.cards.addEventListener("focusin", (event) => this.frame(placeOf(event)));
    this.shelf.addEventListener("click", (event) => {
      const rank = event.target.closest("[data-rank]");
      if (rank) this.rank(this.framed, Number(rank.dataset.rank) || null, modeOf(event));
    });
    makeDraggable(root, (place, rank, mode) => this.rank(place, rank || null, mode));
  }

  /** Shows loaded pictures in the order given, and the ranks of an earlier or half-made answer where there is one. */
  show(pictures, earlier) {
    this.pictures = pictures;
    this.ranks = pictures.map(({ image_id }) => earlier?.ranks[image_id]);
    this.given = [...this.ranks.keys()].filter((place) => this.ranks[place] !== undefined); // in the order that they were ranked in
    this.framed = Math.max(0, this.ranks.indexOf(undefined));
    const columns = columnsFor(pictures.length);
    this.cards.style.setProperty("--columns", columns);
    this.cards.style.setProperty("--rows", Math.ceil(pictures.length / columns));
    this.cards.replaceChildren(...pictures.map(card));
    this.shelf.replaceChildren(...pictures.map((_, place) => shelfRank(place + 1)), shelfRank(0));
    this.draw();
  }

  key(event) {
    const digit = digitOf(event);
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const columns = columnsFor(this.pictures.length);
    const actions = {
      ArrowLeft: () => this.frame(this.framed - 1),
      ArrowRight: () => this.frame(this.framed + 1),
      ArrowUp: () => this.frame(this.framed - columns),
      ArrowDown: () => this.frame(this.framed + columns),
      Backspace: () => this.takeBack(),
      Escape: () => this.clear(),
      Enter: () => this.submit("key"),
      s: () => this.skip("key"),
    };
    if (digit !== null) this.rank(this.framed, digit || null, "key");
    else if (name in actions) actions[name]();
    else return false;
    return true;
  }

  /** Ranks the picture at a place (null is can't judge) and moves the frame to the next one without a rank. */
  rank(place, rank, mode) {
    if (rank > this.pictures.length) return;
    this.mode = mode;
    this.ranks[place] = rank;
    this.given = [...this.given.filter((other) => other !== place), place];
    const places = this.pictures.map((_, index) => (place + 1 + index) % this.pictures.length);
    this.framed = places.find((other) => this.ranks[other] === undefined) ?? place;
    this.change();
    const left = this.pictures.length - this.given.length;
    this.say(`${this.nameOf(place)}. ${left ? `${left} to go` : "Enter submits"}`);
  }

  /** A click on a picture: the next free rank, or none again. */
  pick(place, mode) {
    if (place === undefined) return;
    if (this.ranks[place] !== undefined) return this.unrank(place);
    let rank = 1;
    while (this.ranks.includes(rank)) rank += 1;
    this.rank(place, rank, mode);
  }

  unrank(place) {
    this.ranks[place] = undefined;
    this.given = this.given.filter((other) => other !== place);
    this.framed = place;
    this.change();
    this.say(this.nameOf(place));
  }

  takeBack() {
    if (this.given.length) this.unrank(this.given.at(-1));
  }

  clear() {
    this.ranks.fill(undefined);
    this.given = [];
    this.framed = 0;
    this.change();
    this.say("All ranks cleared");
  }

  frame(place) {
    if (!(place in this.pictures) || place === this.framed) return;
    this.framed = place;
    this.draw();
    this.say(this.nameOf(place));
  }

  get complete() {
    return !this.ranks.includes(undefined);
  }

  submit(mode) {
    if (this.complete) this.answer(this.answerOf(this.ranks), this.mode ?? mode);
    else this.say(`${this.pictures.length - this.given.length} pictures have no rank yet`);
  }

  skip(mode) {
    const unranked = this.answerOf(this.pictures.map(() => null));
    this.ask("skip-ranking", (reason, unsafe) => this.answer({ ...unranked, reason, unsafe }, mode), this.pictures);
  }

  answerOf(ranks) {
    const given = this.pictures.map(({ image_id }, place) => [image_id, ranks[place]]);
    return { ranks: Object.fromEntries(given.filter(([, rank]) => rank !== undefined)) };
  }

  nameOf(place) {
    const rank = this.ranks[place];
    const tied = rank != null && this.ranks.filter((other) => other === rank).length > 1;
    if (rank === undefined) return `Picture ${place + 1}, no rank`;
    return rank === null ? `Picture ${place + 1}, can't judge` : `Picture ${place + 1}, rank ${rank}${tied ? ", a tie" : ""}`;
  }

  change() {
    this.draw();
    this.changed(this.answerOf(this.ranks));
  }

  draw() {
    for (const [place, card] of [...this.cards.children].entries()) {
      const rank = this.ranks[place];
      card.classList.toggle("framed", place === this.framed);
      card.classList.toggle("ranked", rank !== undefined);
      card.querySelector(".badge").textContent = rank === undefined ? "" : (rank ?? "?");
      card.querySelector("button").setAttribute("aria-label", this.nameOf(place));
    }
    for (const spot of this.shelf.children) this.drawRank(spot, Number(spot.dataset.rank) || null);
    this.buttons.submit.disabled = !this.complete;
  }

  drawRank(spot, rank) {
    const places = [...this.ranks.keys()].filter((place) => this.ranks[place] === rank);
    const held = places.length ? ` (now: picture ${places.map((place) => place + 1).join(", ")})` : "";
    spot.setAttribute("aria-label", `${rank === null ? "Can't judge" : `Rank ${rank}`} for picture ${this.framed + 1}${held}`);
    spot.classList.toggle("tie", rank !== null && places.length > 1);
    spot.querySelector(".thumbs").replaceChildren(...places.map((place) => thumb(this.pictures[place].element, place)));
  }
}

/** Columns of cards on a wide screen. */
function columnsFor(pictures) {
  if (pictures <= 4) return pictures;
  return pictures <= 6 || pictures === 9 ? 3 : 4;
}

function placeOf(event) {
  const place = event.target.closest("[data-place]")?.dataset.place;
  return place && Number(place);
}

function made(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function card({ element }, place) {
  const item = made("li", "card");
  const button = made("button", "picture");
  button.type = "button";
  button.dataset.place = place;
  const grip = made("span", "grip", "⠿");
  grip.setAttribute("aria-hidden", "true");
  button.append(element, made("span", "badge"), grip);
  item.append(button);
  return item;
}

function shelfRank(rank) {
  const spot = made("button", "rank");
  spot.type = "button";
  spot.dataset.rank = rank;
  spot.append(made("span", "number", rank || "?"), made("span", "thumbs"));
  return spot;
}

function thumb(element, place) {
  const small = element.cloneNode();
  small.classList.add("grip");
  small.dataset.place = place;
  return small;
}
