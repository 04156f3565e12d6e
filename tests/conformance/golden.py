"""The PTX of each wrapper, with its operands by where they come from, as golden.txt records it."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.build_cache import CSRC
from tests.conformance.build import HERE, ptx
from tests.facts.cubins import ARCHS

SOURCE = HERE / "wrappers.cu"
RECORD = HERE / "golden.txt"

NOTHING = "arithmetic alone"

# Instructions that an intrinsic becomes; what stands in asm is the wrapper's in any case.
_OWN = re.compile(
    r"(bar|barrier|shfl|vote|redux|atom|trap|(mul|add|sub)\.rn|st\.global\.v[24])\b"
    r"|ld\.(global\.nc|global\.v[24]|shared)\b"
    r"|mov\.\w+ [\w%]+, %(tid|ntid|ctaid|nctaid)\."
)
_REGISTER = re.compile(r"%(?:tmp|(?:r|rd|rs|f|fd|h|p)\d+)\b")
# Those whose result is their operand in another form.
_COPY = re.compile(r"(?:mov|cvta?|setp\.ne|selp)\S*\s+(%\w+), (?:1, 0, )?(%\w+)(?:, 0)?$")
_CONSTANT = re.compile(r"mov\.\w+ (%\w+), (-?\d+)$")
_PARAMETER = re.compile(r"ld\.param\.\w+\s+(%\w+), \[\w+_param_(\d+)\]$")
_LOAD = re.compile(r"ld\.global\.(?:[uf]|b)\w+\s+(%\w+), \[(%\w+)(?:\+(\d+))?\]$")
_STORE = re.compile(r"st\.global\.(?!v[24])\w+\s+\[(%\w+)(?:\+(\d+))?\], (%\w+)$")


def kernels(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of each kernel of namespace `golden` in a PTX text."""
    for part in text.split(".visible .entry ")[1:]:
        length, rest = re.match(r"_ZN6golden(\d+)(.*)", part, re.S).groups()
        yield rest[: int(length)], part[part.index("{") + 1 :]


def _statements(body: str) -> Iterator[tuple[bool, str]]:
    """(whether it stands in asm, instruction) without braces and declarations."""
    in_asm = False
    for line in body.splitlines():
        if "inline asm" in line:
            in_asm = "begin" in line
        line = re.sub(r"//.*|^\s*\{(?= \.reg|$)|^\s*\}\s*$|; \}$", "", line)
        for statement in line.split(";"):
            statement = re.sub(r"\s+", " ", statement).strip()
            if statement and not statement.startswith((".", "$", "@")):
                yield in_asm, statement


def _shorten(statement: str) -> str:
    """Five and more neighbours of a list become their first and last."""

    def replace(match: re.Match) -> str:
        items = match[1].split(", ")
        places = [re.fullmatch(r"(\w+)\[(\d+)\]", item) for item in items]
        if len(items) < 5 or not all(places):
            return match[0]
        expected = [(places[0][1], int(places[0][2]) + 4 * i) for i in range(len(items))]
        if [(place[1], int(place[2])) for place in places] != expected:
            return match[0]
        return f"{{{items[0]} to {items[-1]}}}"

    return re.sub(r"\{([^{}]*)\}", replace, statement)


def normalised(body: str) -> list[str]:
    """The wrapper's own instructions.

    `a0` is the kernel's first argument, `a0[4]` what was loaded four bytes behind it, `r0` the
    first result; `a0[4] = r0` says where a result is stored.
    """
    origin: dict[str, str] = {}
    lines = []

    def name(register: str) -> str:
        if register not in origin:
            origin[register] = f"r{sum(text.startswith('r') for text in set(origin.values()))}"
        return origin[register]

    for in_asm, statement in _statements(body):
        if not in_asm and (found := _PARAMETER.match(statement)):
            origin[found[1]] = f"a{found[2]}"
        elif not in_asm and (found := _CONSTANT.match(statement)):
            origin[found[1]] = found[2]
        elif not in_asm and (found := _COPY.match(statement)) and found[2] in origin:
            origin[found[1]] = origin[found[2]]
        elif not in_asm and (found := _LOAD.match(statement)):
            origin[found[1]] = f"{origin[found[2]]}[{found[3] or 0}]"
        elif not in_asm and (found := _STORE.match(statement)):
            place = f"{origin[found[1]]}[{found[2] or 0}]"
            value = origin.get(found[3], place)
            if value != place and not value.isdigit():
                lines.append(f"{place} = {value}")
        elif in_asm or _OWN.match(statement):
            lines.append(_shorten(_REGISTER.sub(lambda m: name(m[0]), statement)))
    return lines


def wrapper_ptx(arch: str, csrc: Path = CSRC) -> dict[str, list[str]]:
    return {name: normalised(body) for name, body in kernels(ptx(SOURCE, arch, csrc))}


def render(by_arch: dict[str, dict[str, list[str]]]) -> str:
    """All wrappers; architectures with the same instructions stand together."""
    sections = []
    for name in next(iter(by_arch.values())):
        archs: dict[str, list[str]] = {}
        for arch, wrappers in by_arch.items():
            lines = "\n".join(f"  {line}" for line in wrappers[name] or [NOTHING])
            archs.setdefault(lines, []).append(arch)
        parts = [f" {' '.join(same)}:\n{text}" for text, same in archs.items()]
        sections.append("\n".join([name, *parts]))
    return "\n".join(sections) + "\n"


def current(csrc: Path = CSRC, archs: tuple[str, ...] = ARCHS) -> str:
    return render({arch: wrapper_ptx(arch, csrc) for arch in archs})
