"""Work that tests wait for, begun before they ask: compilers and programs keep a second core busy.

A test is marked with what it will need, `@ahead(function, *arguments)`. The function keeps what it
makes (tests/build_cache.py), or the test takes it from `result(function, *arguments)`.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

_pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="ahead")
_begun: dict[tuple, Future] = {}


def ahead(function: Callable, *arguments) -> pytest.MarkDecorator:
    return pytest.mark.ahead.with_args(function, *arguments)


def begin(items: Iterable[pytest.Item]) -> None:
    """Starts what these tests will need, each once, in their order."""
    for item in items:
        for mark in item.iter_markers("ahead"):
            if mark.args not in _begun:
                _begun[mark.args] = _pool.submit(*mark.args)


def result(function: Callable, *arguments):
    """What was begun, when it is done; what still waits for a core is done here and now."""
    begun = _begun.get((function, *arguments))
    return function(*arguments) if begun is None or begun.cancel() else begun.result()


def stop() -> None:
    """Nobody asks any more: only what runs already goes on."""
    _pool.shutdown(wait=False, cancel_futures=True)
