/** Settings, token, consent to speech recognition, help: dialogs over the page. */

import { find, show, write } from "./dom.ts";
import type { ServerInfo } from "./proto/messages.ts";
import type { Settings } from "./settings.ts";
import { installRecogniser, type Recogniser } from "./speech.ts";
import type { HelpTopic } from "./trouble.ts";
import { type Voices, voices } from "./voice.ts";

const RECOGNISERS: Record<Recogniser, string> = {
  device: "Speech is recognised on this device.",
  installable:
    "This browser can recognise speech on this device after a download; until then it sends audio to its maker.",
  maker: "This browser sends audio to its maker to recognise speech. It will ask you first.",
  none: "This browser does not recognise speech. Use the microphone key of your keyboard.",
};
const VOICES: Record<Voices, string> = {
  device: "With a voice of this device.",
  maker: "This browser’s voice is its maker’s: descriptions read aloud are sent there.",
  none: "This browser has no English voice.",
};

/** What the dialogs change. */
export interface DialogActions {
  change(settings: Partial<Settings>): void;
  useToken(token: string, stays: boolean): void;
}

export class Dialogs {
  readonly #actions: DialogActions;

  constructor(actions: DialogActions) {
    this.#actions = actions;
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.querySelector(".close")?.addEventListener("click", () => dialog.close());
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close(); // on the backdrop
      });
    }
    for (const box of checkboxes()) {
      box.addEventListener("change", () => actions.change({ [box.dataset.setting!]: box.checked }));
    }
    const steps = find<HTMLInputElement>("setting-steps");
    steps.addEventListener("change", () => {
      if (steps.validity.valid) actions.change({ steps: Number(steps.value) || 0 });
      else steps.reportValidity();
    });
    const model = find<HTMLSelectElement>("setting-model");
    model.addEventListener("change", () => actions.change({ model: model.value }));
    find("open-help").addEventListener("click", () => this.help());
    find("token-change").addEventListener("click", () => {
      find<HTMLDialogElement>("settings").close();
      this.askToken();
    });
    find("token-forget").addEventListener("click", () => {
      find<HTMLDialogElement>("settings").close();
      actions.useToken("", false);
    });
    find("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = find<HTMLInputElement>("token-value");
      const token = value.value.trim();
      if (!token) return;
      value.value = "";
      find<HTMLDialogElement>("token").close();
      actions.useToken(token, find<HTMLInputElement>("token-stays").checked);
    });
  }

  openSettings(settings: Settings, server: ServerInfo | null, recogniser: Recogniser, hasToken: boolean): void {
    for (const box of checkboxes()) box.checked = settings[box.dataset.setting as keyof Settings] === true;
    const steps = find<HTMLInputElement>("setting-steps");
    steps.value = settings.steps ? String(settings.steps) : "";
    steps.max = server === null ? "" : String(server.maxSteps);
    steps.placeholder = server?.defaults?.steps === undefined ? "usual" : String(server.defaults.steps);
    const models = server?.models ?? [];
    show(find("model-row"), models.length > 1);
    find("setting-model").replaceChildren(
      ...models.map((name) => new Option(name, name, false, name === settings.model)),
    );
    write(find("voices-say"), VOICES[voices()]);
    write(find("recogniser-says"), RECOGNISERS[recogniser]);
    show(find("consent-row"), recogniser === "maker" || recogniser === "installable");
    show(find("token-forget"), hasToken);
    write(
      find("server-facts"),
      server === null
        ? `${location.host} is not connected.`
        : `${location.host} runs ${server.modelVersion} on ${server.engine}. ${server.notice}`,
    );
    find<HTMLDialogElement>("settings").showModal();
  }

  askToken(): void {
    find<HTMLDialogElement>("token").showModal();
    find("token-value").focus();
  }

  /** Opens the help, at a topic where one is named. */
  help(topic?: HelpTopic): void {
    const dialog = find<HTMLDialogElement>("help");
    const opened = topic === undefined ? null : find<HTMLDetailsElement>(`help-${topic}`);
    if (opened !== null) for (const each of dialog.querySelectorAll("details")) each.open = each === opened;
    dialog.showModal();
    opened?.scrollIntoView({ block: "nearest" });
  }

  /** Asks whether speech may go to the browser's maker; null means that the wearer would rather type. */
  async askConsent(recogniser: Recogniser): Promise<"maker" | "device" | null> {
    const dialog = find<HTMLDialogElement>("consent");
    const installable = recogniser === "installable";
    show(find("consent-install"), installable);
    show(find("consent-device"), installable);
    dialog.showModal();
    const choice = await new Promise<"maker" | "device" | null>((resolve) => {
      const closed = new AbortController();
      const choose = (id: string, value: "maker" | "device" | null) =>
        find(id).addEventListener(
          "click",
          () => {
            resolve(value);
            dialog.close();
          },
          { signal: closed.signal },
        );
      choose("consent-yes", "maker");
      choose("consent-device", "device");
      choose("consent-no", null);
      dialog.addEventListener(
        "close",
        () => {
          closed.abort();
          resolve(null);
        },
        { signal: closed.signal },
      );
    });
    if (choice === "device" && !(await installRecogniser())) return null;
    if (choice === "maker") this.#actions.change({ speechConsent: true });
    return choice;
  }
}

function checkboxes(): HTMLInputElement[] {
  return [...document.querySelectorAll<HTMLInputElement>("input[data-setting]")];
}
