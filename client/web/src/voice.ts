/** Descriptions read aloud by the browser's own voices, those on the device before those of its maker's servers. */

export type Voices = "device" | "maker" | "none";

function voice(): SpeechSynthesisVoice | undefined {
  const english = speechSynthesis.getVoices().filter((each) => each.lang.toLowerCase().startsWith("en"));
  return (
    english.find((each) => each.localService && each.default) ?? english.find((each) => each.localService) ?? english[0]
  );
}

/** Returns whose voices there are. Browsers may tell only a moment after the page has loaded. */
export function voices(): Voices {
  if (!("speechSynthesis" in window)) return "none";
  const found = voice();
  if (found === undefined) return "none";
  return found.localService ? "device" : "maker";
}

/** Reads a text aloud, in place of what is being read; calls back when it ends. */
export function speak(text: string, ended: () => void): void {
  hush();
  const utterance = new SpeechSynthesisUtterance(text);
  const chosen = voice();
  if (chosen !== undefined) utterance.voice = chosen;
  utterance.lang = chosen?.lang ?? "en-US";
  utterance.onend = utterance.onerror = ended;
  speechSynthesis.speak(utterance);
}

/** Stops reading. */
export function hush(): void {
  if ("speechSynthesis" in window) speechSynthesis.cancel();
}
