"""Triton kernels' mutants, judged in Triton's interpreter by a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.build_cache import ROOT
from tests.mutation.mutants import Kill, Mutant, mutated
from tests.mutation.programs import read
from tests.mutation.triton_rules import triton_mutants

BUILD = "interpreter"


@dataclass(frozen=True)
class TritonKernel:
    op: str  # its text is triton_kernels/<op>.py

    @property
    def text(self) -> str:
        return f"triton_kernels/{self.op}.py"

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def missing(self) -> str | None:
        found = importlib.util.find_spec("triton")
        return None if found else "triton is not installed; pip install triton"

    def mutants(self) -> list[Mutant]:
        return triton_mutants(self.text, read(self.text))

    def hunt(self, ids: list[str]) -> Iterator[tuple[str, Kill | None]]:
        for id, words in self._run(ids):
            yield id, words and Kill(BUILD, (1, 1), words)

    def replay(self, kills: dict[str, Kill]) -> Iterator[tuple[str, str | None]]:
        yield from self._run(list(kills))

    def _run(self, ids: list[str]) -> Iterator[tuple[str, str | None]]:
        original, changes = read(self.text), {m.id: m.change for m in self.mutants()}
        texts = {id: mutated(original, changes[id]) if id else original for id in ids}
        with subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.triton_worker", self.op],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TRITON_INTERPRET": "1"},
        ) as worker:
            worker.stdin.write(json.dumps(texts))
            worker.stdin.close()
            for line in worker.stdout:
                yield tuple(json.loads(line))
        assert worker.returncode == 0, f"{self.op} must be judged, got {worker.returncode}"
