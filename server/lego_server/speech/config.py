"""How speech is written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.speech.recognise import RECOGNISERS

from lego_server.settings import Section, setting


@dataclass(frozen=True)
class SpeechSettings(Section):
    """`[speech]`: what writes down what wearers say, for devices that cannot; none unless `recogniser` is set."""

    recogniser: str | None = setting(
        None, "What writes down speech; auto takes the best that is installed, unset offers none.",
        choices=("auto", *RECOGNISERS), option="--speech",
    )  # fmt: skip
    model: Path | None = setting(None, "Directory of a Moonshine model of your own.", option="--speech-model")
    workers: int = setting(
        1, "Utterances written down at the same time; each has a model of its own in memory.", 1, 64,
        option="--speech-workers",
    )  # fmt: skip
    threads: int = setting(1, "CPU threads of each.", 1, 256, option="--speech-threads")
    max_utterance_seconds: float = setting(
        20.0, "Longest utterance, in seconds; recognisers know none above 30.", 1, 30, option="--speech-seconds"
    )
    max_streams: int = setting(
        16, "Utterances under way at once, those that are still spoken included; one more is refused.", 1, 10_000,
        option="--speech-streams",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.recogniser is None:
            raise LegoError("--speech-model is given without --speech; add --speech auto")
