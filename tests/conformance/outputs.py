"""Runs the conformance program and compares what it wrote with what was recorded."""

import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conformance.build import HERE

RECORD = HERE / "expected.txt"
SECONDS = 120  # for all cases; a GPU needs few


@dataclass(frozen=True)
class Output:
    """Words that a case wrote; floats may differ by `tolerance`."""

    type: str  # "word" or "float"
    tolerance: float
    words: np.ndarray

    @property
    def record(self) -> str:
        digest = hashlib.sha256(self.words.tobytes()).hexdigest()
        return f"{self.type} {self.tolerance:.6g} {len(self.words)} {digest}"

    def differences(self, other: np.ndarray) -> np.ndarray:
        """Places where `other` is something else."""
        if len(other) != len(self.words):
            return np.arange(max(len(other), len(self.words)))
        if self.type == "word":
            return np.flatnonzero(self.words != other)
        # Wider, so that the difference of two floats is exact enough; infinities equal themselves.
        with np.errstate(invalid="ignore"):
            ours, theirs = (w.view(np.float32).astype(np.float64) for w in (self.words, other))
            near = np.abs(ours - theirs) <= self.tolerance
        return np.flatnonzero(~(near | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))


def read(file: Path) -> dict[str, Output]:
    content, at, outputs = file.read_bytes(), 0, {}
    while at < len(content):
        end = content.index(b"\n", at)
        name, kind, tolerance, count = content[at:end].decode().split()
        words = np.frombuffer(content, "<u4", int(count), end + 1)
        outputs[name] = Output(kind, float(tolerance), words)
        at = end + 1 + 4 * int(count)
    return outputs


@dataclass
class Run:
    """What the cases gave; `failed` has what a case said that did not end well."""

    outputs: dict[str, Output]
    skipped: list[str]
    failed: dict[str, str]


def run(program: Path, seed: int = 0, seconds: float = SECONDS) -> Run:
    """Runs all cases. Behind one that fails or hangs, the program is started again."""
    result, first = Run({}, [], {}), 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "outputs")
        while first is not None:
            command = [str(program), str(file), str(first), str(seed)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
                said, error = done.stdout, done.stderr.strip() or f"exit code {done.returncode}"
                failed = done.returncode != 0
            except subprocess.TimeoutExpired as expired:
                said = (expired.stdout or b"").decode()
                failed, error = True, f"not done after {seconds} s"
            lines = said.splitlines()
            if not lines:
                raise RuntimeError(f"{program}: {error}")
            result.outputs |= read(file)
            result.skipped += [line.split()[1] for line in lines if line.endswith(" skipped")]
            number, name = lines[-1].split()[:2]
            if failed:
                result.failed[name] = error
            first = int(number) + 1 if failed else None
    return result


def recorded() -> dict[str, str]:
    lines = RECORD.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def record(outputs: dict[str, Output]) -> str:
    header = "# Outputs on the host model: case, type, tolerance, words, their SHA-256.\n"
    return header + "".join(f"{name} {out.record}\n" for name, out in outputs.items())


def changes(result: Run) -> list[str]:
    """Sentences on what differs from the record; none if nothing does."""
    found = [f"{name}: {error}" for name, error in result.failed.items()]
    before = recorded()
    now = {name: out.record for name, out in result.outputs.items()}
    for name in before | now:
        if name not in result.failed and before.get(name) != now.get(name):
            found.append(f"{name} must be {before.get(name)}, got {now.get(name)}")
    return found
