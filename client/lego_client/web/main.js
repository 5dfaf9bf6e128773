// Connects, and shows what comes of it. The token stays in this page's memory and travels beside "lego.v1" only.

import { comeBackAfter, sentenceOf } from "./closing.js";
import { readFields, textOf } from "./fields.js";

const SESSION_STARTED = 1, SESSION_ID = 1, SERVER = 2, MODEL_VERSION = 2, NOTICE = 10;
const shown = (name) => document.getElementById(name);
let socket = null;

function connect() {
  const token = shown("token").value.trim();
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/guide`;
  const opened = new WebSocket(url, token ? ["lego.v1", `bearer.${token}`] : ["lego.v1"]);
  socket = opened;
  opened.binaryType = "arraybuffer";
  shown("state").textContent = "connecting";
  opened.onmessage = ({ data }) => {
    const started = readFields(new Uint8Array(data)).get(SESSION_STARTED);
    if (started) showSession(readFields(started));
  };
  opened.onclose = ({ code, reason }) => {
    if (socket !== opened) return;
    const wait = comeBackAfter(code, reason);
    const next = wait === null ? "" : `; trying again in ${Math.ceil(wait / 1000)} s`;
    shown("state").textContent = sentenceOf(code, reason) + next;
    if (wait !== null) setTimeout(() => socket === opened && connect(), wait);
  };
}

function showSession(session) {
  const server = readFields(session.get(SERVER));
  shown("state").textContent = "connected";
  shown("session").textContent = textOf(session, SESSION_ID);
  shown("model").textContent = textOf(server, MODEL_VERSION);
  shown("notice").textContent = textOf(server, NOTICE);
}

shown("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const before = socket;
  socket = null;
  before?.close(1000);
  connect();
});
