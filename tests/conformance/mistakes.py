"""Copies of the CUDA texts with one mistake, for tests that must notice it."""

import shutil
from pathlib import Path

from tests.build_cache import CSRC


def changed_copy(folder: Path, name: str, text: str, changed: str) -> Path:
    """csrc in `folder`, with the one place of `text` in csrc/cuda/<name> changed."""
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy, ignore=shutil.ignore_patterns("cpu"))
    file = copy / "cuda" / name
    original = file.read_text()
    assert original.count(text) == 1, "the text to change must stand there once"
    file.write_text(original.replace(text, changed))
    return copy
