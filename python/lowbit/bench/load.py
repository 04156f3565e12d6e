"""What else runs on the machine: timings taken beside other work are worth less."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_THREADS = Path("/proc/self/task")
_GROUP = Path("/proc/self/autogroup")
_NICENESS = -10


def load_average() -> float | None:
    """Mean number of threads of all processes that ran or wanted to in the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # the system has none
        return None


def cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@contextlib.contextmanager
def priority() -> Iterator[None]:
    """The threads of this process go before those of others, where the system permits that."""
    usual, usual_group = {}, _group_niceness()
    for thread in _threads():
        with contextlib.suppress(OSError):  # it has ended
            usual[thread] = os.getpriority(os.PRIO_PROCESS, thread)
    _renice(dict.fromkeys(usual, _NICENESS))
    _renice_group(_NICENESS)
    try:
        yield
    finally:  # threads that were started meanwhile have our priority
        _renice(dict.fromkeys(_threads(), usual.get(os.getpid(), 0)) | usual)
        _renice_group(usual_group)


def _group_niceness() -> int:
    """Linux may schedule sessions as groups: niceness of a thread counts within its group alone."""
    with contextlib.suppress(OSError, ValueError):
        return int(_GROUP.read_text().rpartition(" ")[2])
    return 0


def _renice_group(niceness: int) -> None:
    with contextlib.suppress(OSError):  # not permitted, or the system has no such groups
        if _GROUP.exists():
            _GROUP.write_text(str(niceness))


def _renice(niceness: dict[int, int]) -> None:
    for thread, value in niceness.items():
        with contextlib.suppress(OSError):  # not permitted, or it has ended
            os.setpriority(os.PRIO_PROCESS, thread, value)


def _threads() -> list[int]:
    return [int(path.name) for path in _THREADS.glob("*")]


class Waiting:
    """How long the threads of this process have been waiting for a core since it was made.

    The load average is a minute late and counts our own threads; this is neither.
    """

    def __init__(self):
        self._waited, self._start = _waited(), time.perf_counter()

    def share(self, threads: int) -> float | None:
        """Share of the time of `threads` threads; None where the system does not tell."""
        before, now = self._waited, _waited()
        if before is None or now is None:
            return None
        return max(0.0, now - before) / (threads * (time.perf_counter() - self._start))


def _waited() -> float | None:
    """Seconds that our threads were ready to run without running: Linux' run queue delay."""
    try:
        texts = [path.read_text() for path in _THREADS.glob("*/schedstat")]
        return sum(int(text.split()[1]) for text in texts) / 1e9 if texts else None
    except (OSError, IndexError, ValueError):  # a thread that ended meanwhile, or another format
        return None
