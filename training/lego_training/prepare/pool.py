"""Prepares clips side by side, one process each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache

import cv2
from lego_core.errors import LegoError

from lego_training.prepare.journal import Journal
from lego_training.prepare.judge import Judge, JudgeSpec
from lego_training.prepare.pairs import ClipJob, ClipResult, prepare_clip


def prepare_clips(jobs: Sequence[ClipJob], journal: Journal, workers: int) -> Generator[ClipResult]:
    """Yields what became of each clip, as they get done; it is in the journal by then.

    A consumer that stops, or Ctrl-C, ends the processes at once: the clips they have in hand are begun anew next time.

    Raises:
        LegoError: A process was killed.
        OSError: A file cannot be written.
    """
    if workers == 1 or len(jobs) < 2:
        yield from (_run(job, journal) for job in jobs)
        return
    # A CUDA context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start)
    try:
        for future in as_completed([pool.submit(_run, job, journal) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise LegoError(
            "a worker process was killed, perhaps for want of memory: run the same command again with fewer workers"
        ) from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Readies a process: Ctrl-C is its parent's to handle, and it ends when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One core a process; torch, which CLIP needs, is not loaded yet.
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(job: ClipJob, journal: Journal) -> ClipResult:
    result = prepare_clip(job, _judge(job.judge))
    journal.write(result)
    return result


@cache
def _judge(spec: JudgeSpec) -> Judge:
    return Judge(spec)
