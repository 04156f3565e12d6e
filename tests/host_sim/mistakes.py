"""Seeded mistakes: a small edit of a text, which a check program must notice."""

import shutil
from pathlib import Path

from tests.build_cache import CSRC
from tests.host_sim import builder, runner


def what_is_said(
    program: str, change: tuple[str, str, str], bits: int, flavour: str, seeds: int, folder: Path
) -> str:
    """What the program says of the changed text: its words, or nothing where it finds no mistake.

    change: file of csrc/cuda, text, what it becomes. bits: those that the program's cases have.
    """
    name, text, changed = change
    csrc = shutil.copytree(CSRC, folder / "csrc", ignore=shutil.ignore_patterns("cpu"))
    file = csrc / "cuda" / name
    original = file.read_text()
    assert original.count(text) == 1, "the text to change must stand there once"
    file.write_text(original.replace(text, changed))
    bits_only = (f"-DLOWBIT_CHECK_BITS={bits}",)
    done = runner.run(builder.build_program(program, flavour, csrc, bits_only), 1, seeds)
    return done.stdout + done.stderr if done.returncode else ""
