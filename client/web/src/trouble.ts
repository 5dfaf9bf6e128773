/** What went wrong, for a person: one sentence, and what to do. */
export interface Trouble {
  readonly why: string;
  readonly cure: string;
  /** A part of the help that says more. */
  readonly help?: HelpTopic;
}

export type HelpTopic = "camera" | "microphone" | "certificate" | "privacy" | "token";
