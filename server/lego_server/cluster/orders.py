"""What travels between the server and a replica: frozen dataclasses of bytes, text and numbers, and nothing else.

Ray carries them with pickle, which is as safe as the cluster's own ports are private (`docs/cluster.md`). What a wearer
sends does not get this far before the server has checked it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.messages import QueryFailed
from lego_server.options import SamplingOptions
from lego_server.texts import PromptTokens


@dataclass(frozen=True)
class Order:
    """A checked query on its way to a replica.

    Attributes:
        query: Names it in the cluster.
        frame_key: Names the frame it is about: one of one session.
        frame: The picture as its wearer sent it; its header has been checked.
        prompt: What the VLLM reads.
        options: How to sample; the seed is drawn by now, so that any replica paints the same picture.
        seconds: Left until the answer is worth nothing any more.
        wearer: Who asks; a replica is fair between wearers.
        absent: Whether who asked is not there just now.
    """

    query: str
    frame_key: str
    frame: bytes
    prompt: PromptTokens
    options: SamplingOptions
    seconds: float
    wearer: str
    absent: bool


@dataclass(frozen=True)
class Taken:
    """A replica has taken the query in; the first reply of one that is not refused at once."""

    replica: str


Reply = Taken | DescriptionPiece | StepDone | Answer | QueryFailed
