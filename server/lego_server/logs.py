"""Logs for people and for machines: an event's name and fields; never a picture or a query's words."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from typing import Any

_FIELDS = "lego_fields"
_bound: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("lego_log_fields")


def setup_logging(format: str, level: str) -> None:
    """Sends this process' logs to stderr, from a severity up.

    Args:
        format: "text" or "json", one object a line: time, level, logger, event, and the event's fields.
        level: The severity's name.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def bind(**fields: Any) -> None:
    """Adds fields to every line that this task, and those it starts from now on, will log."""
    _bound.set(bound() | fields)


def bound() -> dict[str, Any]:
    """Returns the fields that this task's lines have."""
    return _bound.get({})


def log_event(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Logs something that happened, as a name and fields."""
    logger.log(level, event, extra={_FIELDS: fields})


class TextFormatter(logging.Formatter):
    """Time, severity, logger, event, then `field=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Returns the line without a traceback."""
        fields = (f" {name}={_short(value)}" for name, value in _fields_of(record).items())
        return super().formatMessage(record) + "".join(fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the object: time (UTC, ISO 8601), level, logger, event, fields, and a failure's traceback."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name,
            "event": record.getMessage(), **_fields_of(record),
        }  # fmt: skip
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return bound() | getattr(record, _FIELDS, {})


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{_short(each)}" for name, each in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)
