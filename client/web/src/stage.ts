/** The large picture: the live view, the view asked about with previews over it, and the answer in three ways. */

import { find, type Pictures, picture, show, write } from "./dom.ts";
import { Ghost } from "./ghost.ts";
import type { Answer } from "./session.ts";
import type { State } from "./state.ts";

export type Mode = "compare" | "pair" | "ghost";

const ALIGNED = 0.5; // confidence
const REVEALED = 12; // percent

export class Stage {
  readonly #pictures: Pictures;
  readonly #video = find<HTMLVideoElement>("view");
  readonly #fit = find("fit");
  readonly #pair = find("pair");
  readonly #at = find<HTMLInputElement>("compare-at");
  readonly #ghostState = find("ghost-state");
  readonly #ghost: Ghost;
  #ghosted: Answer | null = null;
  #onlyChanges = true;

  constructor(pictures: Pictures) {
    this.#pictures = pictures;
    this.#ghost = new Ghost(this.#video, find<HTMLCanvasElement>("overlay"), (confidence) => {
      write(this.#ghostState, confidence >= ALIGNED ? "Ghost in place" : "Point the camera at what you asked about");
    });
    const compare = find("compare");
    const drag = (event: PointerEvent) => {
      const box = compare.getBoundingClientRect();
      this.#slide((100 * (event.clientX - box.left)) / box.width);
    };
    compare.addEventListener("pointerdown", (event) => {
      compare.setPointerCapture(event.pointerId);
      this.#at.focus({ preventScroll: true });
      event.preventDefault();
      drag(event);
    });
    compare.addEventListener("pointermove", (event) => {
      if (compare.hasPointerCapture(event.pointerId)) drag(event);
    });
    this.#at.addEventListener("input", () => this.#slide(Number(this.#at.value)));
  }

  /** Shows a state. `photo` is the address of the photo chosen in place of the camera; empty for none. */
  render(state: State, mode: Mode, photo: string, mirrored: boolean, sending: boolean): void {
    const { camera, asked, shown } = state;
    const live = camera.kind === "live";
    const ghosting = shown !== null && mode === "ghost" && live;
    const compared = shown !== null && (mode === "compare" || (mode === "ghost" && !live));
    const frame = asked?.frame ?? null;
    const looking = frame === null && (shown === null || ghosting);
    show(find("welcome"), looking && !ghosting && !live && camera.kind !== "photo");
    show(this.#fit, frame !== null || compared || ghosting || (looking && (live || camera.kind === "photo")));
    show(this.#pair, shown !== null && mode === "pair");
    show(this.#video, looking && live);
    show(find("camera-tools"), looking && live && !ghosting);
    show(find("sending"), looking && live && sending);
    show(find("dark"), looking && live && camera.dark);
    show(find("compare"), compared);
    show(find("photo"), looking && camera.kind === "photo");
    if (camera.kind === "photo") picture(find<HTMLImageElement>("photo"), photo);
    this.#fit.classList.toggle("mirror", mirrored && !ghosting);
    this.#fit.classList.toggle("thinking", asked !== null);

    const frozen = find<HTMLImageElement>("frozen");
    show(frozen, frame !== null);
    if (frame !== null) picture(frozen, this.#pictures.url(frame.jpeg));
    const preview = find<HTMLImageElement>("preview");
    show(preview, asked?.preview != null);
    if (asked?.preview != null) {
      picture(preview, this.#pictures.url(asked.preview));
      preview.style.opacity = String(asked.step / asked.steps); // noise at first, the picture in the end
    }

    if (shown !== null) {
      const [before, after] = [this.#pictures.url(shown.frame.jpeg), this.#pictures.url(shown.image)];
      picture(find<HTMLImageElement>("compare-before"), before);
      picture(find<HTMLImageElement>("compare-after"), after);
      picture(find<HTMLImageElement>("pair-before"), before);
      picture(find<HTMLImageElement>("pair-after"), after);
      this.#pair.style.setProperty("--ratio", String(shown.frame.width / shown.frame.height));
    }
    this.#setRatio(state, looking);

    show(this.#ghostState, ghosting);
    if (ghosting) void this.#startGhost(shown);
    else this.#stopGhost();
  }

  /** Sets how strong the ghost is, in [0, 1], and whether only what differs from the asked frame is shown. */
  tuneGhost(strength: number, onlyChanges: boolean): void {
    this.#ghost.strength = strength;
    if (onlyChanges === this.#onlyChanges) return;
    this.#onlyChanges = onlyChanges;
    const answer = this.#ghosted;
    this.#stopGhost();
    if (answer !== null) void this.#startGhost(answer);
  }

  /** Shows a new answer: the view before, and the guidance frame drawn over it until next to nothing of it is left. */
  reveal(): void {
    const compare = find("compare");
    this.#slide(100);
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        compare.classList.add("reveal");
        this.#move(REVEALED);
      }),
    );
  }

  #slide(percent: number): void {
    find("compare").classList.remove("reveal");
    this.#move(percent);
  }

  #move(percent: number): void {
    const at = Math.min(100, Math.max(0, percent));
    this.#at.value = String(Math.round(at));
    find("compare").style.setProperty("--at", `${at}%`);
  }

  #setRatio(state: State, looking: boolean): void {
    const shown = state.asked?.frame ?? (looking ? null : state.shown?.frame);
    const { videoWidth, videoHeight } = this.#video;
    const photo = find<HTMLImageElement>("photo");
    let ratio = 4 / 3;
    if (shown != null) ratio = shown.width / shown.height;
    else if (state.camera.kind === "photo" && photo.naturalWidth > 0) ratio = photo.naturalWidth / photo.naturalHeight;
    else if (videoWidth > 0) ratio = videoWidth / videoHeight;
    this.#fit.style.setProperty("--ratio", String(ratio));
  }

  async #startGhost(answer: Answer): Promise<void> {
    if (this.#ghosted === answer) return;
    this.#stopGhost();
    this.#ghosted = answer;
    const [frame, guidance] = await Promise.all([bitmap(answer.frame.jpeg), bitmap(answer.image)]);
    if (this.#ghosted === answer) this.#ghost.start(frame, guidance, this.#onlyChanges);
    frame.close();
    guidance.close();
  }

  #stopGhost(): void {
    if (this.#ghosted === null) return;
    this.#ghosted = null;
    this.#ghost.stop();
  }
}

function bitmap(jpeg: Uint8Array): Promise<ImageBitmap> {
  return createImageBitmap(new Blob([jpeg as Uint8Array<ArrayBuffer>], { type: "image/jpeg" }));
}
