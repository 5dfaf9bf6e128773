/** The phone's camera: opened, switched, lit; and why it cannot be. */

import type { Trouble } from "./trouble.ts";

const WISHED = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

// Torch is in no DOM typing yet (Image Capture specification).
type Torch = { torch?: boolean };

/** Returns in plain words why a camera did not open. */
export function cameraTrouble(error: unknown): Trouble {
  const name = error instanceof Error ? error.name : "";
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return {
        why: "The camera is not allowed for this page.",
        cure: "Allow it in the browser's site settings and try again, or use a photo.",
        help: "camera",
      };
    case "NotFoundError":
    case "OverconstrainedError":
      return { why: "No camera was found.", cure: "Connect one and try again, or use a photo." };
    case "NotReadableError":
    case "AbortError":
      return {
        why: "The camera is in use by another app, or does not start.",
        cure: "Close the other app and try again.",
        help: "camera",
      };
    default:
      return { why: "The camera did not open.", cure: "Try again, or use a photo.", help: "camera" };
  }
}

export const INSECURE: Trouble = {
  why: "The browser gives the camera only to pages that come over https.",
  cure: "Open this server's https address, or use a photo.",
  help: "certificate",
};

export class Camera {
  readonly #video: HTMLVideoElement;
  readonly #onEnd: () => void;
  #stream: MediaStream | null = null;
  #facing: "environment" | "user" = "environment";
  #device = "";
  #attempt = 0;

  /** Takes where the view is shown, and what to call when the camera goes away by itself. */
  constructor(video: HTMLVideoElement, onEnd: () => void) {
    this.#video = video;
    this.#onEnd = onEnd;
  }

  /** Whether this page may have a camera at all. */
  static get possible(): boolean {
    return window.isSecureContext && navigator.mediaDevices !== undefined;
  }

  get live(): boolean {
    return this.#stream !== null;
  }

  /** Whether it looks at its user: such a view is shown as in a mirror. */
  get facesUser(): boolean {
    return this.#track?.getSettings().facingMode === "user";
  }

  /** Whether its light can be switched on. */
  get canTorch(): boolean {
    return "torch" in (this.#track?.getCapabilities?.() ?? {});
  }

  get #track(): MediaStreamTrack | undefined {
    return this.#stream?.getVideoTracks()[0];
  }

  /** Opens it, the rear one first; returns false if it has been stopped meanwhile. */
  async start(): Promise<boolean> {
    this.stop();
    const attempt = this.#attempt;
    const which = this.#device ? { deviceId: { exact: this.#device } } : { facingMode: { ideal: this.#facing } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: { ...WISHED, ...which }, audio: false });
    if (attempt !== this.#attempt) {
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    this.#stream = stream;
    stream.getVideoTracks()[0]?.addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.stop();
      this.#onEnd();
    });
    this.#video.srcObject = stream;
    try {
      await this.#video.play();
    } catch (error) {
      if (attempt === this.#attempt) throw error; // else it was stopped before it could begin
    }
    return attempt === this.#attempt;
  }

  stop(): void {
    this.#attempt += 1;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }

  /** Returns how many cameras there are; 0 where the browser does not tell. */
  async count(): Promise<number> {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((each) => each.kind === "videoinput").length;
  }

  /** Opens the next camera; returns false if it has been stopped meanwhile. */
  async next(): Promise<boolean> {
    const attempt = this.#attempt;
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
    if (attempt !== this.#attempt) return false;
    const now = this.#track?.getSettings() ?? {};
    if (now.facingMode !== undefined && devices.length === 2) {
      this.#facing = now.facingMode === "user" ? "environment" : "user";
    } else {
      const place = devices.findIndex((each) => each.deviceId === now.deviceId);
      this.#device = devices[(place + 1) % devices.length]?.deviceId ?? "";
    }
    return this.start();
  }

  /** Switches its light. */
  async light(on: boolean): Promise<void> {
    await this.#track?.applyConstraints({ advanced: [{ torch: on } as Torch as MediaTrackConstraintSet] });
  }
}
