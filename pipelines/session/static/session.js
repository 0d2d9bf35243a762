// The page of a session. What the server has said is shown; what a person answers is kept in the
// browser until the server says that it is on disk, so that no reload and no lost connection loses it.

const PENDING = "pictune.session.pending";
const LATEST = "pictune.session";
const VISITOR = "pictune.visitor";
const API = "api/v1/";
const AGAIN_MS = 1000;
const LOOK_MS = 250;

const random = (bytes) =>
  [...crypto.getRandomValues(new Uint8Array(bytes))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const kept = (key) => JSON.parse(localStorage.getItem(key) ?? "null");
const keep = (key, value) =>
  value === null ? localStorage.removeItem(key) : localStorage.setItem(key, JSON.stringify(value));

/** A call that the server refuses, in its words. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function startSession(root) {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const part = (name) => root.querySelector(`#${name}`);
  const [signIn, start, turn, end] = ["sign-in", "start", "turn", "end"].map(part);
  const form = part("answer");
  let session = null; // as the server showed it last
  let chosen; // number of a candidate, null for none of them, undefined before a choice
  let shownAt = 0;
  let goOnFrom = null; // the turn that the next one goes on from; null is the latest
  let busy = false; // while an answer is sent or a turn is drawn

  function show(view) {
    for (const one of [signIn, start, turn, end]) one.hidden = one !== view;
    if (view !== turn) part("history").hidden = view !== end;
  }

  function tell(text) {
    part("trouble").textContent = text ?? "";
    part("trouble").hidden = !text;
  }

  /** Call the server; again and again while it cannot be reached. */
  async function call(method, path, body) {
    const options = { method, headers: { "Content-Type": "application/json" } };
    if (body !== undefined) options.body = JSON.stringify(body);
    for (;;) {
      const reply = await fetch(API + path, options).catch(() => null);
      if (reply?.ok) {
        tell(null);
        return await reply.json();
      }
      if (reply && reply.status < 500) {
        const { detail } = await reply.json();
        throw new Refused(reply.status, Array.isArray(detail) ? detail[0].reason : detail);
      }
      tell("No connection. What you said is kept here, and is sent as soon as the server is back.");
      await pause(AGAIN_MS);
    }
  }

  /** Run a step; a refusal is told, and one that asks for a sign-in shows its form. */
  async function step(work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) show(signIn);
      tell(error.status === 401 && facts.needs_password && !session ? null : error.message);
    } finally {
      busy = false;
    }
  }

  async function enter() {
    let name;
    try {
      name = await call("GET", "me");
    } catch (error) {
      if (error.status !== 401 || facts.needs_password) throw error;
      const visitor = kept(VISITOR) ?? random(6);
      keep(VISITOR, visitor);
      name = (await call("POST", "login", { rater: `visitor ${visitor}` })).name;
    }
    part("who").textContent = name.startsWith("visitor ") ? "" : name;
    await resume();
  }

  /** Go on with the session of the address, or the latest one of this browser. */
  async function resume() {
    const address = new URL(location.href).searchParams.get("session");
    const pending = kept(PENDING);
    const id = pending?.session_id ?? address ?? kept(LATEST);
    if (!id) return begin();
    try {
      if (pending) await send(pending);
      session = await call("GET", `sessions/${id}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      keep(PENDING, null);
      return begin();
    }
    if (session.ended && !address && !pending) return begin();
    await advance(pending?.after ?? null);
  }

  function begin() {
    session = null;
    keep(LATEST, null);
    history.replaceState(null, "", location.pathname);
    start.querySelector("[name=prompt]").maxLength = facts.longest_prompt;
    part("name").hidden = facts.needs_password;
    show(start);
  }

  async function send(pending) {
    const { session_id, after: _after, ...body } = pending;
    try {
      session = await call("POST", `sessions/${session_id}/answers`, body);
    } catch (error) {
      if (error.status === 401) throw error;
      keep(PENDING, null);
      if (error.status !== 409) throw error; // 409: answered in another tab, or ended
    }
  }

  /** Have turns drawn until one waits for its answer, or the session has ended. */
  async function advance(after) {
    const id = session.session_id;
    goOnFrom = after;
    keep(LATEST, id);
    history.replaceState(null, "", `?session=${id}`);
    for (;;) {
      if (session.ended) return finish();
      const last = session.turns.at(-1);
      if (last && !last.answer) return ask(last);
      if (session.drawing?.error) return wait(session.drawing);
      if (session.drawing) {
        wait(session.drawing);
        await pause(LOOK_MS);
        session = await call("GET", `sessions/${id}`);
      } else {
        const query = after === null ? "" : `?after=${after}`;
        session = await call("POST", `sessions/${id}/turns${query}`);
      }
    }
  }

  function wait({ ahead, done, of, error }) {
    about(session.turns.length + 1);
    form.hidden = true;
    part("drawing").hidden = false;
    part("again").hidden = !error;
    const bar = part("drawing").querySelector("progress");
    bar.hidden = Boolean(error);
    bar.value = of ? done / of : 0;
    const place = ahead === 1 ? "One person is" : `${ahead} people are`;
    part("how-far").textContent = error ??
      (ahead
        ? `${place} before you in the queue.`
        : of
        ? `Drawing: ${Math.floor(100 * done / of)} %`
        : "Drawing begins.");
    list();
    show(turn);
  }

  function about(number) {
    part("intent").hidden = !session.intent;
    part("intent").textContent = session.intent ? `In your head: ${session.intent}` : "";
    part("about").textContent = `Turn ${number} of ${session.most_turns}`;
  }

  function ask(asked) {
    keep(PENDING, null); // until now a way back was kept here, too
    about(asked.turn);
    if (asked.prompt) part("about").append(element("q", asked.prompt));
    part("drawing").hidden = true;
    form.reset();
    chosen = undefined;
    part("columns").replaceChildren(...asked.columns.map(column));
    part("progress").hidden = !session.turns.some((one) => one.answer);
    const isLast = asked.turn >= session.most_turns;
    part("next").textContent = isLast ? "Finish" : "Next turn";
    part("stop").hidden = isLast;
    form.hidden = false;
    pick(undefined);
    list();
    show(turn);
    part("about").focus({ preventScroll: true });
    shownAt = performance.now();
  }

  function column(one, place) {
    const button = element("button", null, { type: "button", className: "candidate" });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", `Column ${place + 1}${one.prompt ? `: ${one.prompt}` : ""}`);
    button.dataset.candidate = one.candidate;
    const images = element("span", null, { className: "images" });
    images.append(
      ...one.images.map((id) => element("img", null, { src: `${API}images/${id}`, alt: "" })),
    );
    const caption = element("span", null, { className: "caption" });
    caption.append(element("kbd", place + 1), ` ${one.prompt ?? ""}`);
    button.append(images, caption);
    button.addEventListener("click", () => pick(one.candidate));
    return button;
  }

  function pick(candidate) {
    chosen = candidate;
    const columns = [...part("columns").children];
    columns.forEach((one, place) => {
      const is = Number(one.dataset.candidate) === candidate;
      one.setAttribute("aria-checked", is);
      one.tabIndex = is || (typeof candidate !== "number" && place === 0) ? 0 : -1;
    });
    part("none").setAttribute("aria-pressed", candidate === null);
    part("next").disabled = part("stop").disabled = candidate === undefined;
  }

  /** The answered turns, each with a way back to it. */
  function list() {
    const entries = session.turns.filter((one) => one.answer).map((one) => {
      const picked = one.columns.find((column) => column.candidate === one.answer.chosen);
      return [one.turn, picked?.images[0], picked ? picked.prompt : "none of these", one.after];
    });
    const rows = [[0, null, session.prompt, null], ...entries].map(
      ([number, image, text, from]) => {
        const row = element("li");
        if (image) row.append(element("img", null, { src: `${API}images/${image}`, alt: "" }));
        const back = from !== null && from !== number - 1 ? ` (after turn ${from})` : "";
        row.append(element("span", `${number ? `Turn ${number}${back}` : "You asked for"}`));
        if (text) row.append(element("q", text));
        const open = session.turns.at(-1);
        const goesOn = open?.answer === null && open.turn < session.most_turns;
        if (goesOn && number !== open.after) {
          const label = `Go on from ${number ? `turn ${number}` : "the beginning"}`;
          const way = element("button", label, { type: "button" });
          way.addEventListener("click", () => answer({ after: number }));
          row.append(way);
        }
        return row;
      },
    );
    part("history").querySelector("ol").replaceChildren(...rows);
    part("history").hidden = entries.length === 0;
  }

  /** Keep the answer in the browser, send it, and go on; a way back picks none of these. */
  function answer({ stops = false, after = null }) {
    const asked = session.turns.at(-1);
    if (busy || asked?.answer !== null || (after === null && chosen === undefined)) return;
    busy = true;
    const given = new FormData(form);
    const pending = {
      session_id: session.session_id,
      answer_id: random(16),
      turn: asked.turn,
      after,
      answer: {
        chosen: after === null ? chosen : null,
        progress: given.get("progress"),
        critique: given.getAll("critique"),
        comment: given.get("comment").trim() || null,
        stops,
        time_on_task_ms: Math.round(performance.now() - shownAt),
      },
    };
    keep(PENDING, pending);
    part("next").disabled = part("stop").disabled = true;
    step(async () => {
      await send(pending);
      session = await call("GET", `sessions/${pending.session_id}`);
      await advance(after);
    });
  }

  function finish() {
    keep(PENDING, null);
    list();
    show(end);
    end.querySelector("h2").focus({ preventScroll: true });
  }

  function element(tag, text = null, more = {}) {
    const made = Object.assign(document.createElement(tag), more);
    if (text !== null) made.textContent = text;
    return made;
  }

  for (const [place, intent] of ["", ...facts.intents].entries()) {
    const label = element("label", null, { className: "chip" });
    const radio = element("input", null, { type: "radio", name: "intent", value: intent });
    radio.checked = place === 0;
    label.append(radio, ` ${intent || "a wish of my own"}`);
    part("intents").append(label);
  }
  part("intents").hidden = facts.intents.length === 0;
  for (const word of facts.critique) {
    const label = element("label", null, { className: "chip" });
    label.append(element("input", null, { type: "checkbox", name: "critique", value: word }));
    label.append(` ${word}`);
    part("comment").before(label);
  }
  signIn.querySelector("[name=password]").maxLength = facts.longest_password;

  signIn.addEventListener("submit", (event) => {
    event.preventDefault();
    const { rater, password } = Object.fromEntries(new FormData(signIn));
    step(async () => {
      await call("POST", "login", { rater, password: password || null });
      signIn.reset();
      await enter();
    });
  });
  start.addEventListener("submit", (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    const { prompt, intent, rater } = Object.fromEntries(new FormData(start));
    step(async () => {
      if (rater?.trim()) part("who").textContent = (await call("POST", "login", { rater })).name;
      const body = { session_id: random(16), prompt, intent: intent || null };
      session = await call("POST", "sessions", body);
      start.reset();
      await advance(null);
    });
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer({});
  });
  part("stop").addEventListener("click", () => answer({ stops: true }));
  part("none").addEventListener("click", () => pick(chosen === null ? undefined : null));
  part("new").addEventListener("click", begin);
  part("again").addEventListener("click", () => {
    session.drawing = null;
    step(() => advance(goOnFrom));
  });
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    const types = target.matches("input:not([type=radio]):not([type=checkbox]), textarea");
    if (form.hidden || turn.hidden || types || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const columns = [...part("columns").children];
    const at = columns.findIndex((one) => Number(one.dataset.candidate) === chosen);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
    let place = "1234".indexOf(key);
    if (by && target.matches(".candidate")) {
      place = at < 0 ? 0 : (at + by + columns.length) % columns.length;
    }
    if (key === "0") pick(null);
    else if (place >= 0 && place < columns.length) {
      pick(Number(columns[place].dataset.candidate));
      columns[place].focus();
    } else if (key === "Enter" && !target.matches("button:not(.candidate), input")) answer({});
    else return;
    event.preventDefault();
  });
  step(enter);
}
