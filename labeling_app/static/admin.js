// The admin page: asks for the figures every few seconds and shows them as tables. All that raters wrote is shown as text.

import { SIGNED_IN, call } from "./api.js";

const EVERY_MS = 10000;
const QUALITY_PATIENCE_MS = 120000; // of many labels, on a busy machine

const at = (id) => document.getElementById(id);
let summary = null;
let quality = null;
let judging = null; // the present call for the quality
let reports = ""; // as they are shown: a thumbnail that is looked at must not be drawn again

/** Shows a table; cells are texts, or elements. */
function fill(table, head, rows) {
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const element = document.createElement(tag);
      if (tag === "th") element.scope = "col";
      element.append(cell ?? "–");
      row.append(element);
    }
    return row;
  };
  const body = rows.length ? rows.map((row) => line(row, "td")) : [line(["nothing yet"], "td")];
  at(table).replaceChildren(line(head, "th"), ...body);
}

const isNumber = (value) => typeof value === "number";
const percent = (share) => (isNumber(share) ? `${Math.round(100 * share)} %` : null);
const seconds = (ms) => (isNumber(ms) ? `${(ms / 1000).toFixed(1)} s` : null);
const number = (value) => (isNumber(value) ? value.toFixed(2) : null);

function interval(middle, low, high, shown) {
  if (!isNumber(middle)) return null;
  return isNumber(low) ? `${shown(middle)} (${shown(low)} to ${shown(high)})` : shown(middle);
}

function duration(s) {
  if (!isNumber(s)) return "";
  const minutes = Math.ceil(s / 60);
  return minutes < 90 ? `, about ${minutes} min left` : `, about ${Math.round(minutes / 60)} h left`;
}

function pauseButton(rater) {
  const button = document.createElement("button");
  const paused = rater.status === "paused";
  button.type = "button";
  button.textContent = paused ? "Resume" : "Pause";
  button.setAttribute("aria-label", `${button.textContent} ${rater.name}`);
  button.addEventListener("click", () => act(paused ? "resume" : "pause", { rater: rater.name }));
  return button;
}

function show() {
  const { progress, paused, last_export: exported, export_error: failure } = summary;
  at("bar").max = Math.max(progress.total, 1);
  at("bar").value = progress.done;
  at("progress").textContent = `${progress.done} of ${progress.total} labels${duration(progress.seconds_left)}${paused ? ", paused" : ""}`;
  at("pause").textContent = paused ? "Resume the campaign" : "Pause the campaign";
  const when = exported ? `last export ${new Date(exported).toLocaleTimeString()}` : "not exported since the start";
  at("exported").textContent = failure ? `the last export failed: ${failure}` : when;
  fill("categories", ["Category", "Kind", "Done", "Wanted"], summary.categories.map((row) => [row.category, row.kind, row.done, row.total]));
  fill(
    "stream",
    ["When", "Rater", "Prompt", "Answer"],
    summary.stream.map((row) => [new Date(row.submitted_at).toLocaleTimeString(), row.rater, row.prompt, answerText(row.answer)]),
  );
}

function showReports(now) {
  const text = JSON.stringify(now);
  if (text === reports) return;
  reports = text;
  at("reports").hidden = !now.open.length && !now.removed.length;
  const head = ["Image", "Prompt", "Reported by", ""];
  fill("open", head, now.open.map((image) => [thumb(image), image.prompt, reporters(image), decisions(image, ["put-back", "remove"])]));
  at("removed-count").textContent = `${now.removed.length} removed`;
  fill("removed", head, now.removed.map((image) => [thumb(image), image.prompt, reporters(image), decisions(image, ["put-back"])]));
}

/** Blurred until it is looked at. */
function thumb(image) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "thumb";
  button.setAttribute("aria-label", `Look at the reported image of: ${image.prompt}`);
  button.append(Object.assign(new Image(), { src: image.url, alt: "" }));
  return button;
}

function reporters(image) {
  const all = document.createDocumentFragment();
  for (const report of image.reports) {
    const words = [report.reason, report.comment && `“${report.comment}”`].filter(Boolean).join(", ");
    const when = new Date(report.submitted_at).toLocaleString();
    const line = document.createElement("p");
    line.textContent = `${report.rater}${words && `: ${words}`} (${when})`;
    all.append(line);
  }
  return all;
}

function decisions(image, paths) {
  const all = document.createElement("div");
  all.className = "decisions";
  for (const path of paths) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = path === "remove" ? "Remove" : "Put back";
    button.setAttribute("aria-label", `${button.textContent} the image of: ${image.prompt}`);
    button.addEventListener("click", () => act(path, { image_id: image.image_id }));
    all.append(button);
  }
  return all;
}

function showAgreement() {
  const rows = ["binary", "ranking"].flatMap((kind) => {
    const all = quality.agreement[kind];
    return [{ category: "all", ...all }, ...(all.categories ?? [])].map((row) => [
      kind, row.category, interval(row.alpha, row.alpha_ci_low, row.alpha_ci_high, number), row.n_tasks,
    ]);
  });
  at("source").textContent = quality.agreement.source === "simulated" ? "Among simulated raters." : "Among people.";
  fill("agreement", ["Kind", "Category", "Alpha", "Tasks with several raters"], rows);
}

function showRaters() {
  fill(
    "raters",
    ["Rater", "Labels", "Skipped", "Gold accuracy", "Gold answers", "Same answer again", "Skill", "Median time", "Active", "First place", ""],
    quality.raters.map((row) => [
      row.name,
      row.n,
      row.n_skipped,
      interval(row.gold_accuracy, row.gold_ci_low, row.gold_ci_high, percent),
      row.gold_n,
      percent(row.self_consistency),
      percent(row.skill),
      seconds(row.median_ms),
      seconds(row.median_active_ms),
      firstPlace(row),
      pauseButton(row),
    ]),
  );
}

function firstPlace(row) {
  const wins = interval(row.first_place_wins, row.first_place_ci_low, row.first_place_ci_high, percent);
  return wins === null ? null : `${wins}, chance ${percent(row.first_place_expected)}`;
}

function answerText(answer) {
  if (answer.verdict) return [answer.verdict, answer.reason, answer.comment].filter(Boolean).join(": ");
  const ranks = Object.values(answer.ranks).map((rank) => rank ?? "?");
  return [ranks.join(" "), answer.reason, answer.comment].filter(Boolean).join(": ");
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

/** Asks for the figures; without an admin's sign-in it asks for that. */
async function refresh() {
  try {
    summary = await call("GET", "admin/summary");
    const reported = await call("GET", "admin/reports");
    notice("");
    show();
    showReports(reported);
    at("sign-in").hidden = true;
    at("figures").hidden = false;
    judging ??= judge();
  } catch (error) {
    const refused = error.status === 401 || error.status === 403;
    at("sign-in").hidden = !refused;
    if (refused) at("figures").hidden = true;
    notice(error.status === 401 ? "" : error.status ? error.message : "the server cannot be reached");
  }
}

/** Asks for agreement and raters, which take longer than the rest; one call at a time. */
async function judge() {
  try {
    quality = await call("GET", "admin/quality", undefined, { patienceMs: QUALITY_PATIENCE_MS });
    showAgreement();
    showRaters();
  } catch (error) {
    notice(error.status ? error.message : "the server cannot be reached");
  }
  judging = null;
}

async function act(path, body) {
  try {
    await call("POST", `admin/${path}`, body);
    await judging; // it may tell what was before
    await refresh();
  } catch (error) {
    notice(error.message);
  }
}

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const rater = await call("POST", "login", Object.fromEntries(new FormData(event.target)));
    localStorage.setItem(SIGNED_IN, rater.rater_id); // labeling pages in other tabs go on as this one
    event.target.reset();
    await refresh();
  } catch (error) {
    notice(error.message);
  }
});
at("pause").addEventListener("click", () => act(summary.paused ? "resume" : "pause", {}));
at("export").addEventListener("click", () => act("export", {}));
setInterval(() => at("figures").hidden || refresh(), EVERY_MS);
refresh();
