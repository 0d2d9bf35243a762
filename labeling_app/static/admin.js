// @ts-check
// The admin page's own behavior: tables that sort, forms that become events, and what must outlive the
// figures that come every few seconds: order of rows, opened lists, half-typed answers.

const LARGEST_FILE = 60_000; // the server takes bodies of 64 KiB

/**
 * Start one part of the page, which Gradio draws again whenever its value changes.
 * @param {HTMLElement} element the part's root, which stays
 * @param {(event: string, data: unknown) => void} trigger sends an event to the server
 * @param {string[]} events what the part's forms may send
 */
export function start(element, trigger, events) {
  const sorted = new Map(); // id of a table -> {column, descending}
  const typed = new Map(); // name of a field -> its value
  const opened = new Set(); // ids of opened lists
  let focused = "";

  element.addEventListener("click", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const header = target.closest("th button");
    if (header instanceof HTMLElement) {
      const table = header.closest("table");
      const column = Number(header.dataset.column);
      const before = sorted.get(table?.id);
      const descending = before?.column === column
        ? !before.descending
        : header.dataset.numbers === "true";
      if (table) sortBy(table, column, descending);
    }
    const chosen = target.closest("[data-choose]");
    if (chosen instanceof HTMLElement) choose(chosen.dataset.choose ?? "");
  });

  element.addEventListener("change", (event) => {
    if (!(event.target instanceof HTMLSelectElement) || !event.target.dataset.sorts) return;
    const table = document.getElementById(event.target.dataset.sorts);
    const [column, direction] = event.target.value.split(" ");
    if (table instanceof HTMLTableElement) sortBy(table, Number(column), direction === "down");
  });

  element.addEventListener("input", (event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    if (field.dataset.keep) typed.set(field.dataset.keep, field.value);
  });
  element.addEventListener("focusin", (event) => {
    focused = /** @type {HTMLElement} */ (event.target).dataset.keep ?? "";
  });
  element.addEventListener(
    "toggle",
    (event) => {
      const list = /** @type {HTMLDetailsElement} */ (event.target);
      list.open ? opened.add(list.id) : opened.delete(list.id);
    },
    true,
  );

  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const name = form.dataset.event ?? "";
    if (!events.includes(name)) return;
    const data = Object.fromEntries(new FormData(form, event.submitter));
    if (data.file instanceof File) {
      const note = /** @type {HTMLElement} */ (form.querySelector(".note"));
      const fits = data.file.size <= LARGEST_FILE;
      note.textContent = fits
        ? ""
        : `The file is larger than ${LARGEST_FILE / 1000} kB; add it in parts.`;
      if (!fits || !data.file.name) return;
      Object.assign(data, { name: data.file.name, csv: await data.file.text(), file: "" });
    }
    for (const field of form.querySelectorAll("[data-keep]")) {
      typed.delete(/** @type {HTMLElement} */ (field).dataset.keep);
    }
    trigger(name, { ...form.dataset, ...data });
  });

  /** Sort a table's rows and remember how. */
  function sortBy(
    /** @type {HTMLTableElement} */ table,
    /** @type {number} */ column,
    /** @type {boolean} */ descending,
  ) {
    sorted.set(table.id, { column, descending });
    arrange(table, column, descending);
  }

  const observer = new MutationObserver(restore);
  /** Bring back what the figures that were drawn again do not know. */
  function restore() {
    observer.disconnect();
    for (const [id, { column, descending }] of sorted) {
      const table = document.getElementById(id);
      if (table instanceof HTMLTableElement) arrange(table, column, descending);
    }
    for (const list of element.querySelectorAll("details")) {
      list.open = opened.has(list.id) || list.open;
    }
    for (const field of element.querySelectorAll("[data-keep]")) {
      const input = /** @type {HTMLInputElement} */ (field);
      const value = typed.get(input.dataset.keep);
      if (value !== undefined && input.value !== value) input.value = value;
      if (focused && input.dataset.keep === focused && document.activeElement === document.body) {
        input.focus();
      }
    }
    observer.observe(element, { childList: true, subtree: true });
  }
  restore();
}

/** Put a table's rows into the order of a column; what is not known comes last. */
function arrange(
  /** @type {HTMLTableElement} */ table,
  /** @type {number} */ column,
  /** @type {boolean} */ descending,
) {
  const body = table.tBodies[0];
  const key = (/** @type {HTMLTableRowElement} */ row) => row.cells[column]?.dataset.sort ?? "";
  const numbers =
    table.querySelector(`th button[data-column="${column}"]`)?.getAttribute("data-numbers") ===
      "true";
  const sign = descending ? -1 : 1;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return Number(a === "") - Number(b === "");
    return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
  });
  body.append(...rows);
  table.querySelectorAll("th").forEach((header, number) => {
    const order = descending ? "descending" : "ascending";
    number === column
      ? header.setAttribute("aria-sort", order)
      : header.removeAttribute("aria-sort");
  });
  const select = document.querySelector(`select[data-sorts="${table.id}"]`);
  if (select instanceof HTMLSelectElement) select.value = `${column} ${descending ? "down" : "up"}`;
}

/** Name a rater in the form that changes raters, and go there. */
function choose(/** @type {string} */ name) {
  const field = document.querySelector("#people [name=rater]");
  if (!(field instanceof HTMLInputElement)) return;
  field.value = name;
  field.scrollIntoView({ block: "center", behavior: "smooth" });
  field.focus({ preventScroll: true });
}
