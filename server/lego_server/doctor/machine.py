"""What this machine has: memory and open files."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Returns how many more bytes a process may use: the machine's, or fewer by a container's or ulimit's limit.

    None if nobody says.
    """
    known = [value for value in (_machine_memory(), _container_memory(), _process_memory()) if value is not None]
    return min(known, default=None)


def peak_memory() -> int:
    """Returns the most bytes this process has ever had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def open_files_limit() -> int | None:
    """Returns how many files and connections this process may have open; None for no limit."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _machine_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:  # no Linux
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _container_memory() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one that says nothing
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _process_memory() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]  # ulimit -v
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        used = 0
    return max(0, limit - used)
