/** How the server is reached: a WebSocket at the origin of the page; and why it could not be opened. */

import { sentence } from "./closing.ts";
import type { Diagnosis, Socket, SocketListener } from "./link.ts";

const PATH = "guide";
const PROTOCOL = "lego.v1";

/** Opens a connection; the token travels as a subprotocol, as browsers send no other header. */
export function dial(token: string, listener: SocketListener): Socket {
  const url = new URL(PATH, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => listener.opened();
  socket.onmessage = (event: MessageEvent<ArrayBuffer | string>) => listener.message(event.data);
  socket.onclose = (event) => listener.closed(event.code, event.reason);
  return socket;
}

/** Asks over HTTP, where refusals can be read, why a WebSocket did not open. */
export async function diagnose(): Promise<Diagnosis> {
  let answer: Response;
  try {
    answer = await fetch(new URL("health/ready", location.href), { cache: "no-store" });
  } catch {
    return "absent";
  }
  if (answer.status === 404) return { cure: "operator", why: "This server is too old or too new for this page." };
  if (answer.status === 421) return { cure: "operator", why: sentence((await answer.text()).trim()) };
  return answer.ok ? "well" : "absent"; // one that starts or stops is as good as absent
}
