/** Push-to-talk with the browser's own speech recognition, and where it sends what is said. */

import type { Trouble } from "./trouble.ts";

const LANGUAGE = "en-US"; // what the models understand

// Web Speech API, with its on-device part; in no DOM typing yet.
interface Recognition extends EventTarget {
  lang: string;
  interimResults: boolean;
  processLocally?: boolean;
  onresult: ((event: { results: ArrayLike<ArrayLike<{ transcript: string }>> }) => void) | null;
  onerror: ((event: { error: string }) => void) | null;
  onend: (() => void) | null;
  start(): void;
  stop(): void;
  abort(): void;
}
interface RecognitionClass {
  new (): Recognition;
  available?(options: { langs: string[]; processLocally: boolean }): Promise<string>;
  install?(options: { langs: string[]; processLocally: boolean }): Promise<boolean>;
}

/**
 * Who turns speech into words: "device" this device alone; "installable" this device, after a download; "maker" whoever
 * made the browser, to whom it sends the audio; "none" nobody.
 */
export type Recogniser = "device" | "installable" | "maker" | "none";

const local = { langs: [LANGUAGE], processLocally: true };

function recognitionClass(): RecognitionClass | undefined {
  const scope = window as unknown as Record<string, RecognitionClass | undefined>;
  return scope.SpeechRecognition ?? scope.webkitSpeechRecognition;
}

/** Finds out who recognises speech here. */
export async function findRecogniser(): Promise<Recogniser> {
  const found = recognitionClass();
  if (found === undefined) return "none";
  try {
    const told = await found.available?.(local);
    if (told === "available") return "device";
    if (told === "downloadable" || told === "downloading") return "installable";
  } catch {
    // It does not tell: then it must be taken for one that sends audio.
  }
  return "maker";
}

/** Downloads what is needed to recognise speech on this device; returns whether it can now. */
export async function installRecogniser(): Promise<boolean> {
  return (await recognitionClass()?.install?.(local)) ?? false;
}

export const NO_RECOGNISER: Trouble = {
  why: "This browser does not recognise speech.",
  cure: "Type your question, or speak with the microphone key of your keyboard.",
  help: "microphone",
};

/** Returns in plain words why speech was not understood; null for a silence that needs no word. */
export function speechTrouble(error: string): Trouble | null {
  switch (error) {
    case "aborted":
      return null;
    case "no-speech":
      return { why: "Nothing was heard.", cure: "Hold the button, speak, and let it go." };
    case "not-allowed":
      return {
        why: "The microphone is not allowed for this page.",
        cure: "Allow it in the browser's site settings, or type your question.",
        help: "microphone",
      };
    case "audio-capture":
      return { why: "No microphone was found.", cure: "Connect one, or type your question." };
    case "network":
      return {
        why: "The browser's speech service cannot be reached.",
        cure: "Check the network, or type your question.",
        help: "microphone",
      };
    default:
      return {
        why: "The browser's speech recognition is not available here.",
        cure: "Type your question.",
        help: "microphone",
      };
  }
}

/** One utterance being recognised. */
export class Listening {
  readonly #recognition: Recognition;
  #words = "";
  #trouble: Trouble | null = null;

  /** Begins to listen. `hearing` is told all words so far; `done` the words in the end, and what went wrong. */
  constructor(
    onDevice: boolean,
    hearing: (words: string) => void,
    done: (words: string, trouble: Trouble | null) => void,
  ) {
    const recognition = new (recognitionClass()!)();
    this.#recognition = recognition;
    recognition.lang = LANGUAGE;
    recognition.interimResults = true;
    if (onDevice) recognition.processLocally = true;
    recognition.onresult = ({ results }) => {
      this.#words = Array.from(results, (result) => result[0]?.transcript ?? "")
        .join("")
        .trim();
      hearing(this.#words);
    };
    recognition.onerror = ({ error }) => {
      this.#trouble = speechTrouble(error);
    };
    recognition.onend = () => done(this.#words, this.#words ? null : this.#trouble);
    recognition.start();
  }

  /** Lets it make of what it has heard what it can. */
  finish(): void {
    this.#recognition.stop();
  }

  /** Forgets what was heard. */
  abort(): void {
    this.#words = "";
    this.#recognition.abort();
  }
}
