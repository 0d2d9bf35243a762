// @ts-check
// How a rater wants to answer on this device; whatever is not chosen is off.

/** @typedef {"at_once" | "swipes"} Choice */

class Choices {
  constructor() {
    this.place = ""; // the beginning of the keys in localStorage
  }

  /** @param {string} raterId */
  takeFrom(raterId) {
    this.place = `pictune.choice.${raterId}.`;
  }

  /** @param {Choice} name */
  has(name) {
    return localStorage.getItem(this.place + name) !== null;
  }

  /**
   * @param {Choice} name
   * @param {boolean} is
   */
  set(name, is) {
    if (is) localStorage.setItem(this.place + name, "on");
    else localStorage.removeItem(this.place + name);
  }
}

/** The choices of the rater at work. */
export const choices = new Choices();
