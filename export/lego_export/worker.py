"""Runs a job in a process of its own, so that a crash in a vendor's library ends that process and not the command.

The job goes to the worker's stdin as one JSON object. The worker answers with JSON objects on its stdout, one a line:
{"event": "progress", ...} as often as it likes, and at its end {"event": "result", ...} or
{"event": "error", "message": ...}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from lego_core.errors import LegoError

Event = dict[str, Any]
Watch = Callable[[Event], None]


def run_worker(
    module: str,
    job: Mapping[str, Any],
    doing: str,
    watch: Watch = lambda event: None,
    started: Callable[[int], None] = lambda process_id: None,
) -> Event:
    """Runs `python -m module` with a job and waits for its result.

    Args:
        module: Calls `answer_job`.
        job: What to do, in JSON's types.
        doing: For the message of a crash, such as "building the plan of unet".
        watch: Called with every progress event.
        started: Called with the process' id before it gets its job.

    Raises:
        LegoError: The worker says what is wrong, or ended without a result; the message says how.
    """
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(  # noqa: S603 - this Python and a module of ours
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        result: Event | None = None
        try:
            started(process.pid)
            try:
                process.stdin.write(json.dumps(job))
                process.stdin.close()
            except BrokenPipeError:  # it is gone already; how is told below
                pass
            for line in process.stdout:
                event: Event = json.loads(line)
                if event["event"] == "progress":
                    watch(event)
                else:
                    result = event
        finally:
            if result is None:
                process.kill()  # where it is gone already, this does nothing
        code = process.wait()
        log.seek(0)
        last = " ".join(log.read()[-2000:].split())[-300:]
    if result is None:
        raise LegoError(f"{doing} ended {_how(code)}{f' ({last})' if last else ''}: {_cure(code)}")
    if result["event"] == "error":
        raise LegoError(result["message"])
    return result


def answer_job(work: Callable[[Mapping[str, Any], Watch], Mapping[str, Any]]) -> None:
    """The worker's side: reads the job, does it, and answers. Errors that people can put right are answers too."""
    # Libraries print to stdout as they please; that goes to the log, and the answers keep the pipe for themselves.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(event: Event) -> None:
        pipe.write(json.dumps(event) + "\n")
        pipe.flush()

    try:
        job = json.loads(sys.stdin.read())
        say({"event": "result", **work(job, lambda event: say({"event": "progress", **event}))})
    except (LegoError, OSError) as error:
        say({"event": "error", "message": str(error)})


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code} and no result"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _cure(code: int) -> str:
    if code == -signal.SIGKILL:
        return "if nobody stopped it, the machine ran out of memory; end other programs, or use a machine with more"
    return "try again; if it ends so again, try another version of TensorRT or of the driver"
