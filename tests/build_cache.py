"""What compilers make of the sources, kept below build/ by the content of all they read."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
EXAMPLES = ROOT / "examples" / "cuda"
UNUSED_DAYS = 30
_locks: dict[Path, threading.Lock] = defaultdict(threading.Lock)


class CompileError(RuntimeError):
    """A compiler refused a source, or made something slow of it."""


@cache
def version(compiler: str | Path) -> str:
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout


def inputs(sources: Iterable[Path], include: Iterable[Path]) -> list[Path]:
    """The sources and every file they can reach in these folders, also past what is skipped."""
    found, waiting, include = set(), [source.resolve() for source in sources], tuple(include)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _included_by(file, include)
    return sorted(found)


def _included_by(file: Path, include: tuple[Path, ...]) -> Iterator[Path]:
    for name in re.findall(r'^\s*#\s*include\s*["<]([^">]+)[">]', file.read_text(), re.M):
        places = (folder / name for folder in (file.parent, *include))
        included = next((place for place in places if place.is_file()), None)
        if included:
            yield included.resolve()


def key(command: object, contents: Iterable[Path | bytes]) -> str:
    """Of a command's words and of what it reads; where a file lies does not count."""
    state = hashlib.sha256(repr(command).encode())
    for each in contents:
        name, content = ("", each) if isinstance(each, bytes) else (each.name, each.read_bytes())
        state.update(f"{name} {len(content)}\n".encode() + content)
    return state.hexdigest()[:20]


def made(folder: Path, key: str, name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of this key; if there is none yet, `make` writes it to the path it is given.

    Files that `make` writes beside it are kept too. Several threads and processes may ask at once.
    """
    place = folder / key
    with _locks[place]:
        if place.is_dir():
            os.utime(place)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _make_whole(place, name, make)
            _remove_unused(folder)
    return place / name


def _make_whole(place: Path, name: str, make: Callable[[Path], None]) -> None:
    """Under its name there is all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        unfinished = Path(folder, "made")
        unfinished.mkdir()
        make(unfinished / name)
        try:
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was as far at the same time
                raise


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 86400
    for place in folder.iterdir():
        with suppress(FileNotFoundError):  # what another process makes goes when it is done
            if place.stat().st_mtime < oldest:
                shutil.rmtree(place, ignore_errors=True)
