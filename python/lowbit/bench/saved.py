"""Reads result files of `lowbit bench -o json`, those of earlier versions too."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from lowbit.bench.arguments import UsageError
from lowbit.bench.cases import LINEAR
from lowbit.bench.results import SCHEMA_VERSION
from lowbit.bench.rows import Row

_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
    "list[float]": (list,),
}
_FIELDS = {field.name: _TYPES[field.type] for field in dataclasses.fields(Row)}
# The cases of version 1 tell their numbers in words alone.
_CASE = re.compile(
    r"(?:M=(?P<m>\d+) )?N=(?P<n>\d+) K=(?P<k>\d+) (?P<code_bits>\d+)b g\d+ \w+(?: (?P<mode>\w+))?"
)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A result file: its rows, and the parts of the document that tell of the run."""

    path: Path
    rows: list[Row]
    machine: str
    commit: str
    peaks: dict[int, dict[str, float]]

    @property
    def title(self) -> str:
        """What ran where, in one line."""
        return " | ".join(part for part in (self.path.name, self.commit, self.machine) if part)


def read(path: Path) -> Saved:
    """The file, or UsageError in one sentence."""
    try:
        document = json.loads(path.read_text())
        version = document["schema_version"]
        if version <= SCHEMA_VERSION:
            return _saved(path, document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        need = "be a file that `lowbit bench -o json` wrote"
        raise UsageError(f"{path} must {need}, got {type(error).__name__}: {error}") from error
    need = f"have a schema_version of at most {SCHEMA_VERSION}"
    raise UsageError(f"{path} must {need}, got {version}; update lowbit")


def _saved(path: Path, document: dict[str, Any]) -> Saved:
    upgrade = _row_of_version_1 if document["schema_version"] == 1 else _row
    op = next((word for word in document["argv"][1:2] if not word.startswith("-")), LINEAR)
    cpu, versions = document["machine"].get("cpu"), document["versions"]
    model = cpu.get("model", "") if isinstance(cpu, dict) else ""  # else the reason why unknown
    peaks = document.get("peaks", {}).items()
    rows = [upgrade(fields, op) for fields in document["rows"]]
    return Saved(
        path,
        rows,
        next((row.gpu for row in rows if row.gpu), model),
        versions.get("commit") or versions.get("lowbit", ""),
        {int(threads): {name: float(x) for name, x in found.items()} for threads, found in peaks},
    )


def _row(fields: dict[str, Any], op: str) -> Row:
    known = {name: value for name, value in fields.items() if name in _FIELDS}
    for name, value in known.items():
        each = value if isinstance(value, list) else ()
        if not isinstance(value, _FIELDS[name]) or not all(isinstance(x, _NUMBER) for x in each):
            raise TypeError(f"{name} of a row is {value!r}")
    return Row(**known)


def _row_of_version_1(fields: dict[str, Any], op: str) -> Row:
    """Numbers out of the case; its one peak was that of fp32, of every row."""
    row = _row(fields, op)
    found = _CASE.fullmatch(row.case)
    numbers = found.groupdict() if found else {}
    mode = numbers.pop("mode", None)
    for name, value in numbers.items():
        setattr(row, name, int(value or 0))
    row.case = row.case.removesuffix(f" {mode}")
    row.op, row.mode = op, (mode or "exact") if row.own else ""
    row.operations, row.arithmetic = row.flops, "fp32"
    return row
