// @ts-check
// Runs an action whenever it is asked for, one run at a time.

export class Loop {
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
