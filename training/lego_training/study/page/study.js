// One question after another. Served, every answer is sent at once and kept here until it has arrived; opened as a
// file, answers are kept here and saved as a file at the end.
"use strict";

const study = window.STUDY;
const served = location.protocol.startsWith("http");
const byId = (id) => document.getElementById(id);
const storeName = (rater) => `study ${study.name} ${rater}`;
const state = { rater: "", order: [], at: 0, votes: {}, unsent: [], shown: 0, sending: false };

// FNV-1a: the order of items and choices is another for every rater, and the same when they come back.
function hash(text) {
  let value = 0x811c9dc5;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 0x01000193) >>> 0;
  for (let i = 0; i < 3; i += 1) value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d) >>> 0;
  return value;
}
const shuffled = (list, key, nameOf = (each) => each) =>
  [...list].sort((a, b) => hash(key + nameOf(a)) - hash(key + nameOf(b)) || (nameOf(a) < nameOf(b) ? -1 : 1));

function remember() {
  try {
    localStorage.setItem(storeName(state.rater), JSON.stringify({ votes: state.votes, unsent: state.unsent }));
    localStorage.setItem(`study ${study.name}`, state.rater);
  } catch { tell("This browser keeps nothing: do not close the page before the end."); }
}
function recall() {
  try { return JSON.parse(localStorage.getItem(storeName(state.rater))) || {}; } catch { return {}; }
}
function tell(sentence) { byId("trouble").textContent = sentence; }
function show(section) {
  for (const id of ["begin", "ask", "end"]) byId(id).hidden = id !== section;
}

async function begin() {
  const rater = byId("rater").value.trim();
  if (!/^[A-Za-z0-9_-]{3,40}$/.test(rater)) {
    tell("The code needs 3 to 40 letters, digits, - or _.");
    byId("rater").focus();
    return;
  }
  state.rater = rater;
  const kept = recall();
  state.votes = kept.votes || {};
  state.unsent = kept.unsent || [];
  let left = study.items.map((item) => item.id);
  if (served) {
    try {
      const answer = await fetch(`left?rater=${encodeURIComponent(rater)}`);
      if (!answer.ok) throw new Error((await answer.json()).error);
      left = (await answer.json()).items;
    } catch (error) {
      tell(`The study cannot be reached (${error.message}); try again in a moment.`);
      return;
    }
  }
  tell("");
  const answered = study.items.filter((item) => state.votes[item.id]);
  const open = new Set(left);
  const next = shuffled(study.items.filter((item) => open.has(item.id) && !state.votes[item.id]), rater, (i) => i.id);
  state.order = [...answered, ...next];
  state.at = answered.length;
  send();
  ask();
}

function picture(path, words) {
  const image = document.createElement("img");
  image.src = path;
  image.alt = words;
  return image;
}
function given(path, words) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = words;
  figure.append(picture(path, words), caption);
  return figure;
}

function ask() {
  byId("progress").max = Math.max(1, state.order.length);
  byId("progress").value = state.at;
  if (state.at >= state.order.length) { finish(); return; }
  show("ask");
  const item = state.order[state.at];
  byId("question").textContent = study.question;
  byId("words").textContent = item.label || item.description;
  byId("given").replaceChildren(given(item.frame, "First picture"), ...(item.target ? [given(item.target, "Second picture")] : []));
  const choices = study.kind === "images" ? shuffled(item.choices, state.rater + item.id) : item.choices;
  byId("choices").replaceChildren(...choices.map((choice, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.choice = choice;
    button.setAttribute("aria-pressed", String(state.votes[item.id]?.choice === choice));
    if (study.kind === "images") button.append(picture(choice, `Picture ${index + 1}`));
    else button.append(choice === "yes" ? "Yes" : "No");
    button.addEventListener("click", () => vote(item, choice));
    return button;
  }));
  byId("keys").textContent = `Keys ${choices.map((_, index) => index + 1).join(", ")} choose, Backspace goes back.`;
  byId("back").disabled = state.at === 0;
  byId("question").focus();
  state.shown = performance.now();
}

function vote(item, choice) {
  const said = { rater: state.rater, item: item.id, choice, seconds: Math.round((performance.now() - state.shown) / 10) / 100,
    at: new Date().toISOString() };
  state.votes[item.id] = said;
  state.unsent = [...state.unsent.filter((each) => each.item !== item.id), said];
  state.at += 1;
  remember();
  send();
  ask();
}
function back() {
  if (state.at > 0) { state.at -= 1; ask(); }
}

async function send() {
  if (!served || state.sending) return;
  state.sending = true;
  while (state.unsent.length) {
    const said = state.unsent[0];
    try {
      const answer = await fetch("votes", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) });
      if (!answer.ok) throw new Error((await answer.json()).error);
    } catch (error) {
      tell(`Your answers are kept here but could not be sent (${error.message}); trying again.`);
      setTimeout(send, 3000);
      break;
    }
    tell("");
    state.unsent = state.unsent.filter((each) => each !== said);
    remember();
  }
  state.sending = false;
  if (!byId("end").hidden) finish();
}

function finish() {
  const hadFocus = !byId("end").hidden;
  show("end");
  const unsent = served ? state.unsent.length : 0;
  byId("sent").textContent = !served ? "Save your answers and give the file to who asked you."
    : unsent ? `${unsent} answers are still to be sent; please leave the page open.` : "Your answers have arrived. You may close the page.";
  byId("save").hidden = served && !unsent;
  if (!hadFocus) byId("thanks").focus();
}
function save() {
  const text = JSON.stringify({ study: study.name, votes: Object.values(state.votes) }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `votes-${state.rater}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

byId("about").textContent = `${study.items.length} questions, each of them: ${study.question}`;
try { byId("rater").value = localStorage.getItem(`study ${study.name}`) || ""; } catch { /* kept nowhere */ }
byId("rater").value ||= Array.from(crypto.getRandomValues(new Uint8Array(5)), (each) => each.toString(36).padStart(2, "0")).join("");
byId("start").addEventListener("click", begin);
byId("rater").addEventListener("keydown", (event) => { if (event.key === "Enter") begin(); });
byId("back").addEventListener("click", back);
byId("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (byId("ask").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Backspace") { event.preventDefault(); back(); }
  const button = byId("choices").children[Number(event.key) - 1];
  if (button) { event.preventDefault(); button.click(); }
});
