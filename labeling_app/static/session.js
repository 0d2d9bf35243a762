// @ts-check
// Signing in and out: who works here, and what becomes of the page when that changes.

/** @import { Rater } from "../interface.d.ts" */
/** @import { Kept } from "./kept.js" */
/** @import { Guidelines } from "./guidelines.js" */
/** @import { Retry } from "./retry.js" */
/** @import { PageState, State } from "./state.js" */
/** @import { Status } from "./status.js" */
/** @import { Training } from "./training.js" */

import { call, isPassing, isSignedOut, Refused, SIGNED_IN } from "./api.js";
import { facts, find, findAll, slot } from "./dom.js";
import { forget, keepRater, kept } from "./kept.js";
import { Outbox } from "./outbox.js";
import { language, refusalOf, words } from "./words.js";

/**
 * Who works here: asked for while the page loads.
 *
 * @type {Promise<Rater> | null}
 */
let asked = me();

function me() {
  const answer = call("GET", "me");
  answer.catch(() => {}); // told when the page waits for it
  return answer;
}

export class Session {
  /**
   * `welcome(raterId)` is called when a rater is signed in, `begin(outbox, held)` when they are
   * trained too; `held` is what this device has kept where the server cannot be reached.
   *
   * @param {HTMLElement} page
   * @param {{
   *   state: PageState,
   *   status: Status,
   *   retry: Retry,
   *   guidelines: Guidelines,
   *   training: Training,
   *   welcome: (raterId: string) => void,
   *   begin: (outbox: Outbox, held: Kept | null) => void,
   * }} parts
   */
  constructor(page, { state, status, retry, guidelines, training, welcome, begin }) {
    this.page = page;
    this.state = state;
    this.status = status;
    this.retry = retry;
    this.guidelines = guidelines;
    this.training = training;
    this.greet = welcome;
    this.begin = begin;
    this.form = find(page, "form", HTMLFormElement);
    this.nameField = find(this.form, "input", HTMLInputElement);
    this.passwordRow = slot(page, "password-row", HTMLElement);
    this.password = slot(page, "password", HTMLInputElement);
    this.rater = slot(page, "rater", HTMLElement);
    this.admin = slot(page, "admin", HTMLElement);
    this.settings = facts().settings;
    this.form.addEventListener("submit", (event) => this.signIn(event));
  }

  /** The id of the rater who is signed in, or undefined. */
  get raterId() {
    const { name, outbox } = this.state.now;
    return name === "training" || name === "labeling" ? outbox.raterId : undefined;
  }

  /** Goes on where this browser's rater was, or asks for a name. */
  async enter() {
    const found = await this.attempt(async () => {
      const answer = asked ?? me();
      asked = null;
      try {
        return { rater: await answer, held: null };
      } catch (error) {
        const held = isPassing(error) ? kept() : null;
        if (!held) throw error;
        return { rater: held.rater, held };
      }
    });
    if (found) await this.welcome(found.rater, found.held);
  }

  /** @param {SubmitEvent} event */
  async signIn(event) {
    event.preventDefault();
    const given = new FormData(this.form);
    const rater = String(given.get("rater"));
    const password = String(given.get("password"));
    this.status.notice("");
    try {
      await call("POST", "login", this.passwordRow.hidden ? { rater } : { rater, password });
    } catch (error) {
      // some raters have a password where others need none
      if (isSignedOut(error)) this.passwordRow.hidden = false;
      const unreachable = words("sign_in.unreachable");
      return this.status.notice(error instanceof Refused ? refusalOf(error) : unreachable);
    }
    this.form.reset();
    forget(); // of the rater before
    await this.enter();
  }

  async signOut() {
    forget(); // also where the server must be waited for
    await this.attempt(async () => {
      await call("POST", "logout", {});
      this.signedOut();
    });
  }

  /**
   * @param {Rater} rater
   * @param {Kept | null} held
   */
  async welcome(rater, held) {
    this.status.asideCount(0); // what the rater before has put aside is nobody's business
    this.rater.textContent = rater.name;
    this.admin.hidden = rater.role !== "admin";
    localStorage.setItem(SIGNED_IN, rater.rater_id);
    this.greet(rater.rater_id);
    const outbox = new Outbox(rater.rater_id);
    const { guideline_version, guideline_versions } = this.settings;
    const version = guideline_versions[language()] ?? guideline_version;
    this.guidelines.showIfNew(rater.rater_id, version);
    this.state.change({ name: "training", outbox, shown: { view: "waiting" } });
    const trained = rater.trained ||
      await this.attempt(() => this.training.run(outbox, (action) => this.attempt(action)));
    if (trained && this.state.training?.outbox === outbox) {
      keepRater({ ...rater, trained: true });
      this.begin(outbox, held);
    }
  }

  /**
   * Follows another rater who signed in in another tab. Tabs share the cookie: nobody's answer may
   * be sent under the name of somebody else.
   *
   * @param {StorageEvent} event
   */
  followOtherTab({ key, newValue }) {
    const { outbox } = this.state.now;
    if (key !== SIGNED_IN || !outbox || newValue === outbox.raterId) return;
    this.state.change({ name: "changing", outbox });
    this.enter();
  }

  askName(reason = "") {
    for (const dialog of findAll(this.page, "dialog[open]", HTMLDialogElement)) dialog.close();
    this.status.offline(false);
    this.status.notice(reason);
    this.passwordRow.hidden = !this.settings.needs_password;
    this.password.required = this.settings.needs_password;
    this.state.change({ name: "signed out", outbox: this.state.now.outbox });
    this.nameField.focus();
  }

  signedOut() {
    const { labeling, now } = this.state;
    // another rater may have signed in in another tab
    if (!now.outbox || now.outbox.raterId === kept()?.rater.rater_id) forget();
    if (!labeling) return this.askName();
    const unsent = labeling.outbox.waiting.length ? ` ${words("sign_in.kept")}` : "";
    this.askName(words("sign_in.signed_out") + unsent);
  }

  /**
   * Does something that needs the server; tries again while it cannot be reached, asks for the name
   * when signed out. Resolves to nothing when it was refused, or when the rater who wanted it has
   * signed out meanwhile.
   *
   * @template T
   * @param {() => Promise<T>} action
   * @returns {Promise<T | undefined>}
   */
  async attempt(action) {
    const before = this.state.now;
    try {
      return await this.retry.run(action);
    } catch (error) {
      // a late refusal would take the page from the next rater, or the focus from their password
      if (this.isOver(before)) return undefined;
      if (isSignedOut(error)) this.signedOut();
      else this.status.notice(refusalOf(error));
      return undefined;
    }
  }
  /**
   * Whether the rater of an earlier state of the page has signed out since.
   *
   * @param {State} before
   */
  isOver(before) {
    const { now } = this.state;
    const hasLeft = now.name === "signed out" && before.name !== "signed out";
    return hasLeft || now.outbox !== before.outbox;
  }
}
