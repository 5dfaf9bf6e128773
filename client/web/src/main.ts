/** The page: puts camera, session, speech and what is shown together. */

import { usualBackoff } from "./backoff.ts";
import { Camera, cameraTrouble, INSECURE } from "./camera.ts";
import { browserClock } from "./clock.ts";
import { diagnose, dial } from "./dial.ts";
import { Dialogs } from "./dialogs.ts";
import { find, Pictures, show, write } from "./dom.ts";
import { encodeCanvas, type Limits, UnfitFrame } from "./encoding.ts";
import { Panel } from "./panel.ts";
import { photoOf } from "./photo.ts";
import { Session, type SessionEvent, type Wishes } from "./session.ts";
import { type Settings, Store } from "./settings.ts";
import { watchShell } from "./shell.ts";
import { findRecogniser, Listening, NO_RECOGNISER, type Recogniser } from "./speech.ts";
import { type Mode, Stage } from "./stage.ts";
import { type AppEvent, announcement, type CameraState, initial, reduce, type State } from "./state.ts";
import type { Trouble } from "./trouble.ts";
import { Views } from "./views.ts";
import { hush, speak, voices } from "./voice.ts";
import { Wake } from "./wake.ts";

const LONGEST_SIDE = 1024; // pixels: more than the models see, and still quick on a wireless link
const LONGEST_SIDE_SAVING = 512;
const AHEAD_MS = 500; // between views that are sent before anything is asked
const PREVIEWS = 4; // of a picture while it is painted
const ASLEEP_MS = 15_000; // out of sight
const TAP_MS = 350; // a press shorter than this leaves the microphone on until the next

const store = new Store((which) => (which === "local" ? localStorage : sessionStorage));
let settings: Settings = store.settings;
let token = store.token;
let tokenStays = store.tokenStays;
let state: State = initial;
let mode: Mode = "compare";
let photo: { canvas: HTMLCanvasElement; url: string } | null = null;
let recogniser: Recogniser = "none";
let listening: Listening | null = null;
let reading = false;
let sending = false;

const pictures = new Pictures();
const wake = new Wake();
const stage = new Stage(pictures);
const question = find<HTMLInputElement>("question");
const video = find<HTMLVideoElement>("view");

const session = new Session(
  { dial: (listener) => dial(token, listener), diagnose, backoff: usualBackoff, clock: browserClock },
  heard,
);
const camera = new Camera(video, () => {
  cameraFailed({
    why: "The camera went away.",
    cure: "Connect it again, or close what has taken it, and try again.",
    help: "camera",
  });
});
const views = new Views(video, (dark) => {
  if (state.camera.kind === "live") take({ kind: "camera", camera: { ...state.camera, dark } });
});
const dialogs = new Dialogs({ change, useToken });
const panel = new Panel(pictures, {
  showAnswer: (answer) => {
    stopReading();
    take({ kind: "show", answer });
  },
  askAgain: (text) => void ask(text),
  reconnect: () => session.connect(),
  reload: () => location.reload(),
  enterToken: () => dialogs.askToken(),
  startCamera: () => void startCamera(),
  pickPhoto,
  help: (topic) => dialogs.help(topic),
  dismiss: () => take({ kind: "dismissed" }),
});

// What is shown

function take(event: AppEvent): void {
  const before = state;
  state = reduce(state, event);
  if (state === before) return;
  const said = announcement(before, state);
  if (said) write(find("announcer"), said);
  render();
}

function render(): void {
  const kept = new Set<Uint8Array>();
  for (const answer of state.answers) kept.add(answer.image).add(answer.frame.jpeg);
  for (const each of [state.asked?.frame?.jpeg, state.asked?.preview]) if (each) kept.add(each);
  stage.render(state, mode, photo?.url ?? "", camera.facesUser, sending);
  panel.render(state);
  pictures.keepOnly(kept);

  const live = state.camera.kind === "live" ? state.camera : null;
  show(find("camera-next"), live?.canSwitch ?? false);
  show(find("camera-light"), live?.canTorch ?? false);
  find("camera-light").ariaPressed = String(live?.torch ?? false);
  show(find("ghost-tools"), mode === "ghost" && live !== null);
  find("answer-back").ariaLabel = live === null && photo !== null ? "Back to the photo" : "Back to the camera";
  find("answer-speak").ariaPressed = String(reading);
  find("answer-speak").ariaLabel = reading ? "Stop reading" : "Read aloud";
  document.getElementById("answer-speak-icon")?.setAttribute("href", reading ? "#i-stop" : "#i-speak");
  find("talk").ariaPressed = String(state.heard !== null);
  if (state.heard) question.value = state.heard;
  const ahead = settings.viewsAhead && !settings.saveData;
  write(
    find("sent-what"),
    ahead && live !== null
      ? `Views of your camera go to ${location.host} while it is on.`
      : `Asking sends one picture and your words to ${location.host}.`,
  );
  show(find("sent-what"), live !== null || photo !== null);
  const notice = state.server?.notice ?? "";
  show(find("notice"), notice !== "" && notice !== noticed && state.asked === null && state.shown === null);
  write(find("notice-text"), notice);
}

let noticed = "";
find("notice-close").addEventListener("click", () => {
  noticed = state.server?.notice ?? "";
  render();
});

function heard(event: SessionEvent): void {
  if (event.kind === "connected") {
    question.maxLength = event.server.maxQueryCharacters || 1000;
    if (settings.model && !event.server.models.includes(settings.model)) change({ model: "" });
  }
  if (event.kind === "answered") {
    if (mode === "ghost") setMode("compare");
    stage.reveal();
    if (settings.speak) read(event.answer.description);
  }
  take(event);
}

function change(changed: Partial<Settings>): void {
  settings = { ...settings, ...changed };
  store.settings = settings;
  if (camera.live) views.start(longestSide());
  render();
}

function useToken(given: string, stays: boolean): void {
  token = given;
  tokenStays = stays && given !== "";
  store.keepToken(token, tokenStays);
  session.restart();
}

// The camera, and a photo in its place

async function startCamera(open: () => Promise<boolean> = () => camera.start()): Promise<void> {
  if (!Camera.possible) {
    cameraFailed(window.isSecureContext ? cameraTrouble(null) : INSECURE);
    return;
  }
  dropPhoto();
  take({ kind: "camera", camera: { kind: "starting" } });
  try {
    if (!(await open())) return;
  } catch (error) {
    cameraFailed(cameraTrouble(error));
    return;
  }
  views.start(longestSide());
  wake.want(true);
  const canSwitch = (await camera.count()) > 1;
  const now: CameraState = { kind: "live", canSwitch, canTorch: camera.canTorch, torch: false, dark: false };
  if (camera.live) take({ kind: "camera", camera: now });
}

function stopCamera(): void {
  camera.stop();
  views.stop();
  wake.want(false);
}

function cameraFailed(trouble: Trouble): void {
  stopCamera();
  take({ kind: "camera", camera: { kind: "failed", trouble } });
}

function pickPhoto(): void {
  find<HTMLInputElement>("photo-file").click();
}

function dropPhoto(): void {
  if (photo !== null) URL.revokeObjectURL(photo.url);
  photo = null;
}

find<HTMLInputElement>("photo-file").addEventListener("change", async (event) => {
  const input = event.currentTarget as HTMLInputElement;
  const file = input.files?.[0];
  input.value = "";
  if (file === undefined) return;
  const canvas = await photoOf(file, LONGEST_SIDE);
  if (canvas === null) {
    const why = `${file.name} is no picture that this browser can read.`;
    take({ kind: "trouble", text: "", trouble: { why, cure: "Choose a JPEG, PNG or WebP picture." } });
    return;
  }
  stopCamera();
  dropPhoto();
  const image = find<HTMLImageElement>("photo");
  image.addEventListener("load", render, { once: true });
  photo = { canvas, url: URL.createObjectURL(file) };
  take({ kind: "camera", camera: { kind: "photo" } });
  take({ kind: "show", answer: null });
});

find("camera-on").addEventListener("click", () => void startCamera());
find("photo-pick").addEventListener("click", pickPhoto);
find("camera-off").addEventListener("click", () => {
  stopCamera();
  take({ kind: "camera", camera: { kind: "off" } });
  find("camera-on").focus();
});
find("camera-next").addEventListener("click", () => void startCamera(() => camera.next()));
find("camera-light").addEventListener("click", async () => {
  if (state.camera.kind !== "live") return;
  const torch = !state.camera.torch;
  try {
    await camera.light(torch);
    if (state.camera.kind === "live") take({ kind: "camera", camera: { ...state.camera, torch } });
  } catch {
    take({
      kind: "trouble",
      text: "",
      trouble: {
        why: "The light does not switch.",
        cure: "Another app may be using it; close that app and try again.",
      },
    });
  }
});
video.addEventListener("resize", render); // a phone was turned

// Questions

/** Goes to the text field, but not on a phone, whose keyboard would cover what is to be seen. */
function focusQuestion(): void {
  if (matchMedia("(pointer: fine)").matches) question.focus({ preventScroll: true });
}

function longestSide(): number {
  return settings.saveData ? LONGEST_SIDE_SAVING : LONGEST_SIDE;
}

function limits(): Limits {
  const server = state.server;
  const [maxBytes, maxPixels] = [server?.maxImageBytes ?? 0, Number(server?.maxImagePixels ?? 0n)];
  return { maxBytes, maxPixels, longestSide: longestSide() };
}

/** Returns what would be asked about now: the photo, or the sharpest of the last views; null if there is neither. */
function currentView(): HTMLCanvasElement | null {
  return photo?.canvas ?? (camera.live ? views.sharpest() : null);
}

async function ask(text: string): Promise<void> {
  const asked = text.trim();
  const most = state.server?.maxQueryCharacters ?? 0;
  const view = currentView();
  const refuse = (why: string, cure: string) => take({ kind: "trouble", text: "", trouble: { why, cure } });
  if (!asked) return refuse("There is no question yet.", "Type one, such as “How do I open the drawer?”");
  if (view === null) return refuse("There is no picture to ask about.", "Turn on the camera, or use a photo.");
  if (most && asked.length > most) {
    return refuse(`The question has ${asked.length} characters; this server takes ${most}.`, "Ask more briefly.");
  }
  stopReading();
  question.value = "";
  question.blur(); // the phone's keyboard gives way to the picture
  session.cancel();
  take({ kind: "question", text: asked });
  const mine = state.asked;
  try {
    const frame = await encodeCanvas(view, limits());
    if (state.asked !== mine) return; // cancelled, or a newer question was asked
    take({ kind: "framed", frame });
    session.ask(asked, frame, wishes());
  } catch (error) {
    take({ kind: "cancelled" });
    refuse(error instanceof UnfitFrame ? error.message : "The picture could not be prepared.", "Try another one.");
  }
}

function wishes(): Wishes {
  const steps = settings.steps || state.server?.defaults?.steps || 0;
  return {
    ...(settings.model ? { model: settings.model } : {}),
    ...(settings.steps ? { steps: Math.min(settings.steps, state.server?.maxSteps || settings.steps) } : {}),
    ...(settings.saveData || steps < 2 ? {} : { previewEvery: Math.max(1, Math.round(steps / (PREVIEWS + 1))) }),
  };
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  listening?.abort();
  void ask(question.value);
});
find("asked-cancel").addEventListener("click", cancel);
for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", () => void ask(example.textContent ?? ""));
}

function cancel(): void {
  const text = state.asked?.text ?? "";
  session.cancel();
  take({ kind: "cancelled" });
  question.value = text;
  focusQuestion();
}

window.setInterval(async () => {
  const ahead = settings.viewsAhead && !settings.saveData && camera.live && !document.hidden;
  if (ahead !== sending) {
    sending = ahead;
    render();
  }
  if (ahead && state.connection.kind === "asleep") session.connect();
  if (!ahead || !session.wantsViews || state.asked !== null) return;
  const view = currentView();
  if (view === null) return;
  const frame = await encodeCanvas(view, limits()).catch(() => null);
  if (frame !== null) session.offer(frame);
}, AHEAD_MS);

// Answers

function setMode(chosen: Mode): void {
  mode = chosen;
  find<HTMLInputElement>("modes").querySelector<HTMLInputElement>(`input[value="${chosen}"]`)!.checked = true;
  render();
}

find("modes").addEventListener("change", async (event) => {
  setMode((event.target as HTMLInputElement).value as Mode);
  if (mode === "ghost" && !camera.live) await startCamera();
});
const tuneGhost = () =>
  stage.tuneGhost(
    Number(find<HTMLInputElement>("ghost-strength").value) / 100,
    find<HTMLInputElement>("ghost-changes").checked,
  );
find("ghost-tools").addEventListener("input", tuneGhost);
tuneGhost();
find("answer-back").addEventListener("click", back);
find("answer-speak").addEventListener("click", () => {
  if (reading) stopReading();
  else if (state.shown !== null) read(state.shown.description);
});
find("history-clear").addEventListener("click", () => {
  stopReading();
  take({ kind: "cleared" });
  focusQuestion();
});

function back(): void {
  stopReading();
  take({ kind: "show", answer: null });
  if (state.camera.kind === "off") void startCamera();
  focusQuestion();
}

function read(text: string): void {
  if (voices() === "none") {
    take({
      kind: "trouble",
      text: "",
      trouble: {
        why: "This browser has no English voice.",
        cure: "Install one in the system’s speech settings, or read.",
      },
    });
    return;
  }
  reading = true;
  speak(text, () => {
    reading = false;
    render();
  });
  render();
}

function stopReading(): void {
  if (!reading) return;
  reading = false;
  hush();
  render();
}

// Speech

const talk = find("talk");
let pressedAt = 0;

talk.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  talk.setPointerCapture(event.pointerId);
  pressedAt = performance.now();
  toggleListening();
});
talk.addEventListener("pointerup", () => {
  if (performance.now() - pressedAt > TAP_MS) listening?.finish();
});
talk.addEventListener("click", (event) => {
  if (event.detail === 0) toggleListening(); // by keyboard, or by a screen reader
});
talk.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press

function toggleListening(): void {
  if (listening === null) void listen();
  else listening.finish();
}

async function listen(): Promise<void> {
  stopReading();
  if (recogniser === "none") {
    take({ kind: "trouble", text: "", trouble: NO_RECOGNISER });
    return;
  }
  let onDevice = recogniser === "device";
  if (!onDevice && !settings.speechConsent) {
    const choice = await dialogs.askConsent(recogniser);
    recogniser = await findRecogniser();
    onDevice = recogniser === "device";
    if (choice === null) {
      question.focus();
      return;
    }
  }
  take({ kind: "dismissed" });
  take({ kind: "hearing", heard: "" });
  listening = new Listening(
    onDevice,
    (words) => take({ kind: "hearing", heard: words }),
    (words, trouble) => {
      listening = null;
      take({ kind: "hearing", heard: null });
      if (trouble !== null) take({ kind: "trouble", text: "", trouble });
      else if (words && settings.askAtOnce) void ask(words);
      else if (words) question.focus();
    },
  );
}

// The rest of the page

find("open-settings").addEventListener("click", () =>
  dialogs.openSettings(settings, state.server, recogniser, token !== ""),
);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]") !== null) return;
  if (listening !== null) listening.abort();
  else if (reading) stopReading();
  else if (state.failure !== null) take({ kind: "dismissed" });
  else if (state.asked !== null) cancel();
  else if (state.shown !== null) back();
});
let hiddenAt = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  // A phone that slept may have lost the connection without a word; to open another costs nothing.
  else if (performance.now() - hiddenAt > ASLEEP_MS) session.reconnect();
});
window.addEventListener("online", () => {
  const { connection } = state;
  if (connection.kind === "ended" && connection.cure === "retry") session.connect();
  else session.reconnect(); // by another network, perhaps: what was open leads nowhere
});
window.addEventListener("pagehide", () => session.close());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) session.connect();
});

for (const element of document.querySelectorAll(".host")) element.textContent = location.host;
watchShell(() => show(find("toast"), true));
find("toast-reload").addEventListener("click", () => location.reload());
if ("speechSynthesis" in window) speechSynthesis.getVoices(); // asks for them, as some browsers load them late
void findRecogniser().then((found) => {
  recogniser = found;
});
render();
session.connect();
