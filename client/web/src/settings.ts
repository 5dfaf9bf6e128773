/** What a wearer has chosen, kept by the browser; and the token, which is kept apart. */

export interface Settings {
  /** Send views while the camera is on, before anything is asked: answers come sooner. */
  readonly viewsAhead: boolean;
  /** Smaller pictures and no previews. */
  readonly saveData: boolean;
  /** Read descriptions aloud. */
  readonly speak: boolean;
  /** Ask as soon as an utterance ends. */
  readonly askAtOnce: boolean;
  /** Whether the browser's maker may be sent what is said. */
  readonly speechConsent: boolean;
  /** Denoising steps; 0 for the model's default. */
  readonly steps: number;
  /** Which of the server's models is asked; empty for the first. */
  readonly model: string;
}

export const usual: Settings = {
  viewsAhead: false,
  saveData: false,
  speak: false,
  askAtOnce: true,
  speechConsent: false,
  steps: 0,
  model: "",
};

const SETTINGS = "lego-settings";
const TOKEN = "lego-token";

/** Returns settings from their JSON; what is missing, or not of its type, is as usual. */
export function parseSettings(json: string | null): Settings {
  let found: unknown;
  try {
    found = JSON.parse(json ?? "{}");
  } catch {
    return usual;
  }
  if (typeof found !== "object" || found === null) return usual;
  const given = found as Record<string, unknown>;
  const kept = Object.entries(usual).map(([key, value]) => [
    key,
    typeof given[key] === typeof value ? given[key] : value,
  ]);
  return Object.fromEntries(kept) as Settings;
}

/** Where this page keeps things; a browser that forbids it gives nothing and takes nothing. */
export class Store {
  readonly #open: (which: "local" | "session") => Storage;

  constructor(open: (which: "local" | "session") => Storage) {
    this.#open = open;
  }

  get settings(): Settings {
    return parseSettings(this.#read("local", SETTINGS));
  }

  set settings(settings: Settings) {
    this.#write("local", SETTINGS, JSON.stringify(settings));
  }

  /** Empty if there is none. */
  get token(): string {
    return this.#read("session", TOKEN) ?? this.#read("local", TOKEN) ?? "";
  }

  /** Whether the token outlives this tab. */
  get tokenStays(): boolean {
    return this.#read("local", TOKEN) !== null;
  }

  /** Keeps a token for this tab, or until it is forgotten; an empty one is forgotten. */
  keepToken(token: string, stays: boolean): void {
    this.#write("session", TOKEN, token && !stays ? token : null);
    this.#write("local", TOKEN, token && stays ? token : null);
  }

  #read(which: "local" | "session", key: string): string | null {
    try {
      return this.#open(which).getItem(key);
    } catch {
      return null;
    }
  }

  #write(which: "local" | "session", key: string, value: string | null): void {
    try {
      if (value === null) this.#open(which).removeItem(key);
      else this.#open(which).setItem(key, value);
    } catch {
      // Private windows may forbid it: the choice then lasts as long as the page.
    }
  }
}
