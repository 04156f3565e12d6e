"""Runs texts of a Triton kernel in the interpreter: {id: text} in, a line [id, words] for each."""

import json
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

from triton.runtime.errors import InterpreterError

from tests.triton_cpu import backend
from tests.triton_cpu.canaries import OutOfBounds
from tests.triton_cpu.check_mistakes import root_cause, run_all
from tests.triton_cpu.mistakes import load


def words_of(op: str, text: str, folder: Path) -> str | None:
    """What the runs say of this text; None where they see no mistake."""
    folder.mkdir()
    copy = folder / f"{op}.py"
    copy.write_text(text)
    module = {f"lowbit.triton_kernels.{op}": load(copy)}
    try:
        with mock.patch.dict(sys.modules, module):
            run_all(op, backend.NAME)
    except AssertionError as error:
        return _bounds(error) if isinstance(error, OutOfBounds) else "wrong value"
    except InterpreterError as error:
        cause = root_cause(error)
        if isinstance(cause, OutOfBounds):
            return _bounds(cause)
        return f"cannot run: {cause}"[:80]
    return None


def _bounds(error: OutOfBounds) -> str:
    return re.sub(r"\d+", "#", str(error))


def main() -> None:
    op, texts = sys.argv[1], json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder, backend.interpreting():
        for number, (id, text) in enumerate(texts.items()):
            words = words_of(op, text, Path(folder) / f"mutant_{number}")
            print(json.dumps([id, words]), flush=True)


if __name__ == "__main__":
    main()
