"""How well and how soon each recogniser writes down what is said, on synthetic voices, people, and people in noise.

    python -m benchmarks.speech --audio ../shared/fixtures/speech --json docs/results/speech.json

Every recording goes through what a wearer's voice goes through: voice activity, utterances, the recogniser. Errors are
counted in words; numbers are compared as words. Of commands whose labels are slots and not transcripts ("size: eight
ounce") the share of slot words that were understood is told, without noise and with kitchen noise at 10 dB.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import platform
import re
import statistics
import tempfile
import time
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from lego_client.speech.hearing import Listener
from lego_client.speech.microphone import AudioFile
from lego_client.speech.transcribe import Final
from lego_core.speech.audio import RATE, Samples, read_wav
from lego_core.speech.recognise import Recogniser, installed_recognisers, open_recogniser
from lego_core.speech.sphinx import HOUSEHOLD
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

VOICES = ("espeak_us", "espeak_gbf3", "flite_slt", "festival_slt")
NOISE_DB = 10.0
_BEAT_SECONDS = 0.005
_GRAMMAR = "pocketsphinx, household grammar"
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_UNITS += [f"{ten}teen" for ten in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
_TENS = [f"{ten}ty" for ten in ("", "", "twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")]
_SPELLINGS = {"metres": "meters"}


@dataclass(frozen=True)
class Spoken:
    """A recording and what was said in it.

    Attributes:
        path: WAV file.
        words: What was said, or the words of its slots.
    """

    path: Path
    words: str


def main(
    audio: Annotated[Path, typer.Option(help="Folder with tts/, human_misc/ and human_coffee/.")],
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/speech.json"),
    recognisers: Annotated[list[str] | None, typer.Option("--recogniser", help="Default: all installed.")] = None,
) -> None:
    """Measure every recogniser and write figures and plot."""
    figures: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    for name in recognisers or [*installed_recognisers(), _GRAMMAR]:
        figures[name] = _measure(name, audio)
        print(name, json.dumps(figures[name]), flush=True)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2) + "\n")
    _show({name: each for name, each in figures.items() if isinstance(each, dict)}, json_file)


class _Kept:
    """A recogniser that outlives its listeners, which close it when they end."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.name, self.start, self.feed = recogniser.name, recogniser.start, recogniser.feed
        self.hypothesis, self.finish = recogniser.hypothesis, recogniser.finish

    def close(self) -> None:
        pass


def _open(name: str) -> Recogniser:
    return _Kept(open_recogniser(grammar=HOUSEHOLD) if name == _GRAMMAR else open_recogniser(name))


def _measure(name: str, audio: Path) -> dict[str, Any]:
    began = time.perf_counter()
    recogniser = _open(name)
    figures: dict[str, Any] = {"load_seconds": time.perf_counter() - began}
    confidences: dict[bool, list[float]] = {True: [], False: []}
    queries = (audio / "tts" / "queries.txt").read_text().splitlines()
    for voice in VOICES:
        spoken = [Spoken(audio / "tts" / f"q{n:02}_{voice}.wav", query) for n, query in enumerate(queries, 1)]
        figures[f"wer_{voice}"] = asyncio.run(_error_rate(recogniser, spoken, confidences))
    commands = _commands(audio / "human_coffee")
    if name != _GRAMMAR:  # which knows none of their words
        figures["wer_people"] = asyncio.run(_error_rate(recogniser, _transcribed(audio / "human_misc"), confidences))
        figures["recall_commands"] = asyncio.run(_recall(recogniser, commands))
        with tempfile.TemporaryDirectory() as folder:
            noise = read_wav(audio / "human_coffee" / "kitchen_noise_20s.wav")
            noisy = [Spoken(_with_noise(each.path, noise, Path(folder)), each.words) for each in commands]
            figures["recall_commands_noise"] = asyncio.run(_recall(recogniser, noisy))
    festival = [audio / "tts" / f"q{number:02}_festival_slt.wav" for number in range(1, len(queries) + 1)]
    paths = festival if name == _GRAMMAR else [*festival, *(each.path for each in commands)]
    figures["confidences"] = {"right": confidences[True], "wrong": confidences[False]}
    figures |= _cost(recogniser, paths)
    figures |= asyncio.run(_delay(recogniser, paths))
    return figures


async def _heard(recogniser: Recogniser, path: Path) -> tuple[str, float | None]:
    """Returns what was understood, and the least of its confidences."""
    async with Listener(AudioFile(path, paced=False), recogniser, partial_seconds=float("inf")) as listener:
        finals = [heard async for heard in listener if isinstance(heard, Final)]
    sure = [final.confidence for final in finals if final.confidence is not None]
    return " ".join(final.text for final in finals), min(sure, default=None)


async def _error_rate(recogniser: Recogniser, spoken: Iterable[Spoken], confidences: dict[bool, list[float]]) -> float:
    """Returns the share of words that are wrong, and adds each confidence to those of right or wrong sentences."""
    wrong = total = 0
    for each in spoken:
        said = _words(each.words)
        text, confidence = await _heard(recogniser, each.path)
        edits = _edits(said, _words(text))
        if confidence is not None:
            confidences[edits == 0].append(confidence)
        wrong += edits
        total += len(said)
    return wrong / total


async def _recall(recogniser: Recogniser, spoken: Iterable[Spoken]) -> float:
    found = total = 0
    for each in spoken:
        heard = _words((await _heard(recogniser, each.path))[0])
        slots = _words(each.words)
        found += sum(word in heard for word in slots)
        total += len(slots)
    return found / total


def _cost(recogniser: Recogniser, paths: list[Path]) -> dict[str, Any]:
    """Returns seconds of processor and of clock for one second of sound, without partial transcripts."""
    processor = clock = sound = 0.0
    for path in paths:
        samples = read_wav(path)
        recogniser.start()
        processor -= _processor_seconds()
        clock -= time.perf_counter()
        recogniser.feed(samples)
        recogniser.finish()
        processor += _processor_seconds()
        clock += time.perf_counter()
        sound += len(samples) / RATE
    return {"processor_per_second": processor / sound, "clock_per_second": clock / sound}


def _processor_seconds() -> float:
    """Returns what this process and those it has started have used; PocketSphinx works in one of its own."""
    seconds = time.process_time()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            user, system = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


async def _delay(recogniser: Recogniser, paths: list[Path]) -> dict[str, Any]:
    """Listens in real time, with partial transcripts, as a wearer's client does."""
    delays: list[float] = []
    late: list[float] = []

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_BEAT_SECONDS)
            late.append(time.perf_counter() - before - _BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    for path in paths:
        async with Listener(AudioFile(path), recogniser) as listener:
            delays += [heard.delay async for heard in listener if isinstance(heard, Final)]
    beating.cancel()
    return {
        "delay_median": statistics.median(delays), "delay_p95": float(np.percentile(delays, 95)), "delays": delays,
        "event_loop_late_p99": float(np.percentile(late, 99)), "event_loop_late_longest": max(late),
    }  # fmt: skip


def _transcribed(folder: Path) -> list[Spoken]:
    """Returns recordings with transcripts, in the forms of PocketSphinx's test data."""
    spoken = []
    for path in sorted(folder.glob("*.transcription")):
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"<s> (.*) </s> \((.*)\)", line):
                said, name = match.groups()
            else:
                ((name, said),) = csv.reader([line], delimiter="\t")
            if (recording := folder / f"{name}.wav").exists():
                spoken.append(Spoken(recording, said))
    return spoken


def _commands(folder: Path) -> list[Spoken]:
    labels = json.loads((folder / "labels.json").read_text())
    return [
        Spoken(folder / name, " ".join(label["slots"].values()))
        for name, label in sorted(labels.items()) if (folder / name).exists()
    ]  # fmt: skip


def _with_noise(path: Path, noise: Samples, folder: Path) -> Path:
    samples = read_wav(path)
    noise = np.resize(noise, len(samples))
    noisy = samples + noise * np.sqrt((samples**2).mean() / (noise**2).mean() / 10 ** (NOISE_DB / 10))
    noisy /= max(1.0, np.abs(noisy).max())
    with wave.open(str(folder / path.name), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((noisy * 32767).astype("<i2").tobytes())
    return folder / path.name


def _words(text: str) -> list[str]:
    text = re.sub(r"\d+", lambda match: _number(int(match.group())), text.lower())
    words = re.findall(r"[a-z']+", text)
    return " ".join(_SPELLINGS.get(word, word) for word in words).split()


def _number(value: int) -> str:
    if value < 20:
        return f" {_UNITS[value]} "
    if value < 100:
        return f" {_TENS[value // 10]} {_UNITS[value % 10] if value % 10 else ''} "
    return f" {value} "


def _edits(said: list[str], heard: list[str]) -> int:
    """Returns the fewest words to change, drop and add (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        above, row[0] = row[0], number
        for column, other in enumerate(heard, 1):
            above, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, above + (word != other))
    return row[-1]


_COLUMNS = (
    *((f"wer_{voice}", voice.replace("_", " ")) for voice in VOICES),
    ("wer_people", "people"), ("recall_commands", "commands"), ("recall_commands_noise", "with noise"),
)  # fmt: skip


def _show(figures: dict[str, dict[str, Any]], path: Path) -> None:
    table = Table(
        "", *(title for _, title in _COLUMNS), "processor s / s", "delay, median", "p95", "event loop late, p99"
    )
    for name, each in figures.items():
        shares = [f"{each[key]:.0%}" if key in each else "" for key, _ in _COLUMNS]
        table.add_row(
            name, *shares, f"{each['processor_per_second']:.2f}", f"{each['delay_median']:.2f} s",
            f"{each['delay_p95']:.2f} s", f"{each['event_loop_late_p99'] * 1000:.1f} ms",
        )  # fmt: skip
    Console(width=160).print(table, f"Word error rates, then shares of slot words understood. Figures in {path}")
    figure, (errors, recalls) = plt.subplots(1, 2, figsize=(9, 2.8), width_ratios=(5, 2))
    for axis, keys, title in (
        (errors, _COLUMNS[:5], "word error rate, %"),
        (recalls, _COLUMNS[5:], "slot words understood, %"),
    ):
        width = 0.8 / len(figures)
        for number, (name, each) in enumerate(figures.items()):
            shown = [(place, 100 * each[key]) for place, (key, _) in enumerate(keys) if key in each]
            axis.bar([place + number * width for place, _ in shown], [share for _, share in shown], width, label=name)
        axis.set_xticks(
            [place + 0.4 - width / 2 for place in range(len(keys))], [title for _, title in keys], fontsize=8
        )
        axis.set_ylabel(title, fontsize=8)
    errors.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
