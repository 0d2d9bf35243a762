// @ts-check
// Light or dark: as the system says, or as the rater chose in this browser.

const KEY = "pictune.colors"; // the page's head, in page.py, reads it before anything is drawn

export class Colors {
  /** @param {NodeListOf<HTMLInputElement>} choices the radio buttons `system`, `light` and `dark` */
  constructor(choices) {
    this.choices = choices;
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.system.addEventListener("change", () => this.apply()); // after Gradio, which listens too
    globalThis.addEventListener("storage", ({ key }) => key === KEY && this.apply());
    for (const choice of choices) {
      choice.addEventListener("change", () => {
        if (choice.value === "system") localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, choice.value);
        this.apply();
      });
    }
    const address = new URL(location.href);
    address.searchParams.delete("__theme"); // the page's head has put it there for Gradio
    history.replaceState(null, "", address);
    this.apply();
  }

  apply() {
    const chosen = localStorage.getItem(KEY) ?? "system";
    const isDark = chosen === "system" ? this.system.matches : chosen === "dark";
    document.body.classList.toggle("dark", isDark);
    document.documentElement.dataset.colors = chosen;
    for (const choice of this.choices) choice.checked = choice.value === chosen;
  }
}
