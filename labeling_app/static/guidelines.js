// The guidelines in a panel beside the task: raters may answer with the panel open.

export class Guidelines {
  constructor(page, panel, version) {
    Object.assign(this, { page, panel, version });
  }

  get open() {
    return !this.panel.hidden;
  }

  toggle() {
    const text = document.getElementById("guidelines"); // rendered by Gradio, elsewhere on the page
    if (text) this.panel.append(text);
    this.panel.hidden = this.open;
    this.page.classList.toggle("beside", this.open);
    if (this.open) this.panel.focus();
  }

  /** Opens the panel once per rater and version. */
  showIfNew(raterId, version) {
    const key = `pictune.guidelines.${raterId}`;
    this.version.textContent = `Version ${version}`;
    if (localStorage.getItem(key) === version) return;
    localStorage.setItem(key, version);
    if (!this.open) this.toggle();
  }
}
