"""Stands in for the process that builds plans where there is no GPU: speaks its protocol, and writes any bytes.

It says nothing about TensorRT: what is tested with it is what the command does with a worker's answers and files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from lego_core.plans import Machine
from lego_export.worker import Watch, answer_job

MACHINE = Machine("NVIDIA H100 80GB HBM3", "9.0", "11.4.0.106", "13.0")
FAIL_AT = "SCRIPTED_WORKER_FAILS_AT"  # the graph at which it gives up
CRASH_AT = "SCRIPTED_WORKER_CRASHES_AT"


def work(job: Mapping[str, Any], watch: Watch) -> Mapping[str, Any]:
    if job["kind"] == "probe":
        return {"machine": asdict(MACHINE)}
    os.write(1, b"a library prints\n")
    watch({"phase": "building", "done": 1, "total": 2})
    if job["graph"] == os.environ.get(CRASH_AT):
        os.write(2, b"cuda: a bad thing\n")
        os.abort()
    if job["graph"] == os.environ.get(FAIL_AT):
        raise LegoError(f"graph {job['graph']} cannot be built")
    Path(job["target"]).write_bytes(f"{job['graph']} {job.get('level')} {os.getpid()}".encode())
    return {"layers": {"float32": 1}, "note": "", "seconds": 1.0, "error": 0.0}


if __name__ == "__main__":
    answer_job(work)
