/** What stands below or beside the large picture: what is in the way, the question, the answer, those before. */

import { find, type Pictures, picture, show, write } from "./dom.ts";
import type { Answer } from "./session.ts";
import { badge, type Failure, obstacle, progressLabel, type State } from "./state.ts";
import type { HelpTopic, Trouble } from "./trouble.ts";

/** What a person can do from the panel. */
export interface PanelActions {
  showAnswer(answer: Answer): void;
  askAgain(text: string): void;
  reconnect(): void;
  reload(): void;
  enterToken(): void;
  startCamera(): void;
  pickPhoto(): void;
  help(topic: HelpTopic): void;
  dismiss(): void;
}

export class Panel {
  readonly #pictures: Pictures;
  readonly #actions: PanelActions;
  #trouble: Trouble | null = null;
  #answers: readonly Answer[] = [];
  #current: Answer | null = null;

  constructor(pictures: Pictures, actions: PanelActions) {
    this.#pictures = pictures;
    this.#actions = actions;
    find("trouble-close").addEventListener("click", () => actions.dismiss());
  }

  render(state: State): void {
    const { tone, label } = badge(state);
    find("badge").dataset.tone = tone;
    write(find("badge-label"), label);
    this.#renderTrouble(state);
    this.#renderAsked(state);
    this.#renderAnswer(state);
    this.#renderHistory(state);
    show(find("examples"), (state.camera.kind === "live" || state.camera.kind === "photo") && this.#quiet(state));
  }

  #quiet(state: State): boolean {
    return state.answers.length === 0 && state.asked === null && state.failure === null;
  }

  #renderTrouble(state: State): void {
    const trouble = worst(state);
    show(find("trouble"), trouble !== null);
    if (trouble === null || (trouble.why === this.#trouble?.why && trouble.cure === this.#trouble.cure)) {
      if (trouble === null) this.#trouble = null;
      return;
    }
    this.#trouble = trouble;
    write(find("trouble-why"), trouble.why);
    write(find("trouble-cure"), trouble.cure);
    show(find("trouble-close"), state.failure !== null);
    find("trouble-actions").replaceChildren(...this.#cures(state, trouble));
  }

  #cures(state: State, trouble: Trouble): HTMLButtonElement[] {
    const { connection, failure, camera } = state;
    const buttons: HTMLButtonElement[] = [];
    const add = (label: string, act: () => void) => buttons.push(button(label, act));
    if (failure !== null) {
      if (trouble.help === "token") add("Enter token", () => this.#actions.enterToken());
      else if (failure.text) add("Ask again", () => this.#actions.askAgain(failure.text));
    } else if (connection.kind === "waiting") {
      add("Try now", () => this.#actions.reconnect());
    } else if (connection.kind === "ended") {
      if (connection.cure === "token") add("Enter token", () => this.#actions.enterToken());
      else if (connection.cure === "reload") add("Reload", () => this.#actions.reload());
      else add("Try again", () => this.#actions.reconnect());
    } else if (camera.kind === "failed") {
      add("Try again", () => this.#actions.startCamera());
      add("Use a photo", () => this.#actions.pickPhoto());
    }
    const topic = trouble.help;
    if (topic !== undefined) add("Help", () => this.#actions.help(topic));
    return buttons;
  }

  #renderAsked({ asked }: State): void {
    const card = find("asked");
    show(card, asked !== null);
    if (asked === null) return;
    write(find("asked-text"), asked.text);
    write(find("asked-description"), asked.description);
    card.classList.toggle("writing", asked.stage === "describing");
    const progress = find<HTMLProgressElement>("asked-progress");
    if (asked.stage === "painting" && asked.steps > 0) {
      progress.max = asked.steps;
      progress.value = asked.step;
    } else {
      progress.removeAttribute("value");
    }
    write(find("asked-stage"), progressLabel(asked));
  }

  #renderAnswer({ shown, asked, server }: State): void {
    show(find("answer"), shown !== null && asked === null);
    if (shown === null || shown === this.#current) return;
    this.#current = shown;
    write(find("answer-text"), shown.text);
    write(find("answer-description"), shown.description);
    find<HTMLAnchorElement>("answer-save").href = this.#pictures.url(shown.image);
    const seconds = (shown.totalMs / 1000).toFixed(1);
    const name = server?.modelName ?? "";
    write(find("answer-facts"), `${name} · ${shown.steps} steps · ${seconds} s · seed ${shown.seed}`);
  }

  #renderHistory({ answers, shown, asked }: State): void {
    show(find("history"), answers.length > 0 && asked === null);
    if (answers !== this.#answers) {
      this.#answers = answers;
      find("history-list").replaceChildren(...answers.map((each) => this.#entry(each)));
    }
    for (const [place, entry] of [...find("history-list").querySelectorAll("button")].entries()) {
      entry.setAttribute("aria-current", String(answers[place] === shown));
    }
  }

  #entry(answer: Answer): HTMLLIElement {
    const item = document.createElement("li");
    const entry = button("", () => this.#actions.showAnswer(answer));
    entry.title = answer.text;
    const image = document.createElement("img");
    image.alt = `Answer to: ${answer.text}`;
    picture(image, this.#pictures.url(answer.image));
    const text = document.createElement("span");
    text.textContent = answer.text;
    text.ariaHidden = "true";
    entry.append(image, text);
    item.append(entry);
    return item;
  }
}

/** Returns what should be told first: what became of a question, the connection, the camera. */
function worst(state: State): Trouble | null {
  const failure: Failure | null = state.failure;
  if (failure !== null) return failure.trouble;
  const barred = obstacle(state.connection);
  if (barred !== null) return barred;
  return state.camera.kind === "failed" ? state.camera.trouble : null;
}

function button(label: string, act: () => void): HTMLButtonElement {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", act);
  return made;
}
