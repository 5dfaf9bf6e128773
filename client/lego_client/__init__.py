"""The wearer's side of LEGO-AR: cameras in, questions up, guidance shown. Never imports torch.

What a program of one's own needs is here by name, and is imported when it is first used (docs/embedding.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lego_core.errors import LegoError

    from lego_client.answer import Answer
    from lego_client.errors import ServerError
    from lego_client.events import (
        ConnectionLost,
        DescriptionPiece,
        Event,
        Guidance,
        GuidanceOptions,
        Progress,
        QueryFailed,
        QueryRestarted,
        Reconnected,
        ServerInfo,
    )
    from lego_client.guide import Frame, Guide

__all__ = [
    "Answer",
    "ConnectionLost",
    "DescriptionPiece",
    "Event",
    "Frame",
    "Guidance",
    "GuidanceOptions",
    "Guide",
    "LegoError",
    "Progress",
    "QueryFailed",
    "QueryRestarted",
    "Reconnected",
    "ServerError",
    "ServerInfo",
]

_ELSEWHERE = {
    "Answer": "lego_client.answer",
    "Frame": "lego_client.guide",
    "Guide": "lego_client.guide",
    "LegoError": "lego_core.errors",
    "ServerError": "lego_client.errors",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "lego_client.events")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
