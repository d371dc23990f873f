// A chat over the task API, without a library: it submits a task, follows its
// events with EventSource, and keeps what it shows and the id of the last event
// in the browser. So an answer goes on where it was after a reload, on whatever
// replica answers then: the task does not depend on who watches it. What the
// model knows of the conversation is the server's: a session with memory.

const $ = (id) => document.getElementById(id);
const key = "penstock-chat";
const ends = ["succeeded", "failed", "cancelled", "expired", "dead"];

// What is kept: {session, model, turns: [{role, text, key?, task?, last?, state, note?}]}.
// The state of an answer is "sending", "open", or how its task ended.
let chat = load();
let source = null; // the open event stream; there is at most one

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (kept?.session && Array.isArray(kept.turns)) return kept;
  } catch { /* damaged: begin anew */ }
  return begin("");
}

function begin(model) {
  return { session: crypto.randomUUID(), model, turns: [] };
}

// The text and the id of its last event are kept in one write: a reload between
// two would lose a piece, or show it twice.
function save() {
  try {
    localStorage.setItem(key, JSON.stringify(chat));
  } catch {
    say("This browser keeps nothing more: a reload will lose the end of this chat.");
  }
}

const say = (text) => { $("notice").textContent = text; };
const unfinished = () => chat.turns.find((t) => t.state === "sending" || t.state === "open");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

function draw() {
  const main = $("turns");
  while (main.children.length > chat.turns.length) main.lastChild.remove();
  chat.turns.forEach((turn, n) => {
    const at = main.children[n] ?? main.appendChild(article());
    at.className = turn.role;
    at.classList.toggle("bad", ["failed", "expired", "dead", "lost"].includes(turn.state));
    at.setAttribute("aria-busy", turn === unfinished());
    if (at.firstChild.textContent !== turn.text) at.firstChild.textContent = turn.text;
    at.lastChild.textContent = turn.note ?? "";
    at.dataset.task = turn.task ?? "";
  });
  const busy = Boolean(unfinished());
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  main.scrollTop = main.scrollHeight;
}

function article() {
  const a = document.createElement("article");
  a.append(document.createElement("p"), document.createElement("small"));
  a.setAttribute("aria-live", "polite");
  return a;
}

// ask sends what is due and follows its answer. A task is sent with a key that
// was kept before: whoever reloads, or lost the network, in the middle of that
// sends the same task again, and gets the one that is there already.
async function ask(turn) {
  if (turn.state === "sending") {
    const { text } = chat.turns[chat.turns.indexOf(turn) - 1];
    const body = {
      model: turn.model, payload: { text }, session_id: chat.session, memory: true,
      stream: true, class: "interactive", source: "web", params: { max_tokens: 256 },
    };
    const answer = await call("/v1/inference", {
      method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", "idempotency-key": turn.key },
    });
    if (!chat.turns.includes(turn)) return; // a new chat was begun meanwhile
    if (!answer.ok) return close(turn, "failed", answer.message);
    Object.assign(turn, { task: answer.data.task_id, state: "open" });
    save();
  }
  follow(turn);
}

// call repeats a request for as long as the trouble is one that passes.
async function call(path, options) {
  for (let pause = 500; ; pause = Math.min(2 * pause, 8000)) {
    try {
      const res = await fetch(path, options);
      const body = await res.json();
      if (res.ok) { say(""); return { ok: true, data: body.data }; }
      if (res.status !== 503 && res.status !== 429) return { ok: false, status: res.status, message: body.message };
      say(body.message);
      await wait(1000 * (Number(res.headers.get("retry-after")) || 1));
    } catch {
      say("The server does not answer. Trying again.");
      await wait(pause);
    }
  }
}

function follow(turn) {
  const after = turn.last ? `?after=${encodeURIComponent(turn.last)}` : "";
  source?.close();
  const stream = source = new EventSource(`/v1/tasks/${turn.task}/events${after}`);
  const on = (type, take) => stream.addEventListener(type, (e) => {
    if (stream !== source) return;
    const data = JSON.parse(e.data);
    if (e.lastEventId) turn.last = e.lastEventId;
    say("");
    take(data);
    save();
    draw();
  });
  on("queued", () => { turn.note = "queued"; });
  on("started", () => { turn.note = ""; });
  on("delta", (e) => { turn.text += e.text ?? ""; });
  on("snapshot", (e) => { turn.text = e.text ?? ""; });
  on("restart", (e) => { turn.text = e.text ?? ""; turn.note = "the answer began anew"; });
  on("gap", () => { turn.text += " … "; turn.note = "a part is missing until the end"; });
  for (const status of ends) on(status, (e) => end(turn, e.result));
  stream.onerror = () => {
    if (stream !== source) return;
    say("The connection was lost. Taking it up again.");
    if (stream.readyState === EventSource.CLOSED) look(turn); // it does not come back by itself
  };
}

// look asks for the task where its stream is refused: its end was seen, its
// result is gone, or the server is away for long.
async function look(turn) {
  source = null;
  const answer = await call(`/v1/tasks/${turn.task}`);
  if (!chat.turns.includes(turn) || source) return;
  if (!answer.ok) return close(turn, "lost", answer.status === 410 ? "the answer's time is over" : answer.message);
  if (ends.includes(answer.data.status)) return end(turn, answer.data);
  await wait(1000);
  if (chat.turns.includes(turn) && !source) follow(turn);
}

// end shows how a task ended. Its output replaces what was shown of it.
function end(turn, result) {
  if (result.status === "succeeded") turn.text = result.output?.text ?? "";
  const notes = { succeeded: "", cancelled: "stopped", expired: "nobody took it in time" };
  close(turn, result.status, notes[result.status] ?? result.error?.message ?? result.status);
}

function close(turn, state, note) {
  source?.close();
  source = null;
  Object.assign(turn, { state, note });
  say("");
  save();
  draw();
  $("text").focus();
}

$("form").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text || unfinished()) return;
  $("text").value = "";
  const turn = { role: "assistant", text: "", model: $("model").value, key: crypto.randomUUID(), state: "sending" };
  chat.turns.push({ role: "user", text }, turn);
  save();
  draw();
  ask(chat.turns.at(-1));
});

$("text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); $("form").requestSubmit(); }
});

// Leaving the page is no stop; this is. Whatever ended the task first is what
// its stream then tells.
$("stop").addEventListener("click", async () => {
  const turn = unfinished();
  if (turn?.task) await call(`/v1/tasks/${turn.task}/cancel`, { method: "POST" });
});

$("new").addEventListener("click", () => {
  source?.close();
  source = null;
  fetch(`/v1/sessions/${chat.session}`, { method: "DELETE" }).catch(() => {}); // it runs out anyway
  chat = begin(chat.model);
  say("");
  save();
  draw();
});

$("model").addEventListener("change", (e) => { chat.model = e.target.value; save(); });

async function models() {
  const { data } = await (await fetch("/v1/models")).json();
  const names = data.map((m) => m.id);
  $("model").replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(chat.model)) $("model").value = chat.model;
}

draw();
models().catch(() => say("The models cannot be listed: is the server up?"));
const due = unfinished();
if (due) ask(due);
