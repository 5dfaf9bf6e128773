"""Where first-person frames come from: one class each behind the small interface `FrameSource`."""

from lego_client.sources.base import RING_SIZE, CapturedFrame, FrameSource
from lego_client.sources.factory import open_source

__all__ = ["RING_SIZE", "CapturedFrame", "FrameSource", "open_source"]
