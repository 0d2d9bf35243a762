// @ts-check
// The rater's own pace: labels today and per hour, the goal of the day, and when a break is due.

/** @import { Pace } from "../interface.d.ts" */

import { call } from "./api.js";
import { slot } from "./dom.js";
import { words } from "./words.js";

const REFRESH_MS = 60000;
const FRESH_MS = 90000; // older figures suggest no break: the rater may have made one since

export class OwnPace {
  /** @param {HTMLElement} page */
  constructor(page) {
    this.line = slot(page, "own", HTMLElement);
    this.today = slot(page, "today", HTMLElement);
    this.goal = slot(page, "goal", HTMLElement);
    this.goalBar = slot(page, "goal-bar", HTMLProgressElement);
    this.goalText = slot(page, "goal-text", HTMLElement);
    this.aside = slot(page, "aside-count", HTMLButtonElement);
    this.raterId = "";
    /** @type {Pace | null} */
    this.told = null; // by the server
    this.heardAt = -Infinity; // performance.now()
    this.mine = 0;
    const look = () => document.hidden || this.refresh();
    setInterval(look, REFRESH_MS);
    document.addEventListener("visibilitychange", look);
  }

  /**
   * Shows the pace of this rater from now on; of nobody when the id is empty.
   *
   * @param {string} raterId
   */
  follow(raterId) {
    this.raterId = raterId;
    this.told = null;
    this.today.textContent = "";
    this.line.hidden = !raterId; // its place is kept: nothing below may jump when figures come
    this.refresh();
  }

  /** Asks the server; figures stay as they are while it cannot be reached. */
  async refresh() {
    const { raterId } = this;
    if (!raterId) return;
    const since = encodeURIComponent(startOfDay().toISOString());
    try {
      const told = await call("GET", `pace?since=${since}`, undefined, { asRater: raterId });
      if (this.raterId !== raterId) return; // somebody else has signed in
      this.told = told;
      this.mine = told.mine;
      this.heardAt = performance.now();
      this.draw();
    } catch {
      // the next answer tells whether the server can be reached
    }
  }

  /**
   * Counts on between two refreshes.
   *
   * @param {number} mine all labels of the rater
   */
  count(mine) {
    this.mine = mine;
    this.draw();
  }

  draw() {
    if (!this.told) return;
    const { labels, mine, per_hour, daily_goal, aside } = this.told;
    const today = Math.max(0, labels + this.mine - mine);
    const pace = per_hour === null ? "" : words("own.pace", { number: Math.round(per_hour) });
    this.today.textContent = [words("own.today", { number: today }), pace].filter(Boolean).join(
      " · ",
    );
    this.goal.hidden = daily_goal === null;
    if (daily_goal !== null) {
      this.goalBar.max = daily_goal;
      this.goalBar.value = Math.min(today, daily_goal);
      const reached = today >= daily_goal;
      const goal = reached ? "own.goal_reached" : "own.goal";
      this.goalText.textContent = words(goal, { number: daily_goal });
      this.goal.dataset.reached = String(reached);
    }
    this.aside.hidden = aside === 0;
    this.aside.textContent = words("own.aside", { number: aside });
  }

  /** Returns the minutes of work after which a break is due now, else null. */
  get breakDue() {
    const after = this.told?.pause_after_min;
    if (!this.told || !after || performance.now() - this.heardAt > FRESH_MS) return null;
    const suggested = Number(localStorage.getItem(this.key) ?? 0);
    const isDue = this.told.working_s >= 60 * after && Date.now() - suggested >= 60000 * after;
    return isDue ? Math.max(1, Math.round(this.told.working_s / 60)) : null;
  }

  /** Suggests no break again before as much time has passed as before the first. */
  suggested() {
    try {
      localStorage.setItem(this.key, String(Date.now()));
    } catch {
      this.heardAt = -Infinity; // the storage is full: better no break than one after each task
    }
  }

  get key() {
    return `pictune.break.${this.raterId}`;
  }
}

/** Returns the beginning of the day where the rater is. */
function startOfDay() {
  const now = new Date();
  return new Date(now.getFullYear(), now.getMonth(), now.getDate());
}
