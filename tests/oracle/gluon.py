"""Triton's layouts as arrays; Triton runs in a process of its own, once."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.build_cache import ROOT
from tests.oracle.ptx_machine import PtxMachine


def missing() -> str | None:
    """Why Triton's layouts cannot be had here; None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


@cache
def _said() -> dict:
    command = [sys.executable, "-m", "tests.oracle.triton_layouts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _combine(bases: list[list[int]], count: int) -> np.ndarray:
    """[index, dimension]: the exclusive or of the bases at the bits of the index."""
    places = np.zeros((count, 2), np.int64)
    for bit, base in enumerate(bases):
        places[np.arange(count) >> bit & 1 == 1] ^= base
    return places


def fragment(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of [thread, element]."""
    bases = _said()["fragments"][name]
    count = {part: 1 << len(bases[part]) for part in bases}
    registers = _combine(bases["registers"], count["registers"])
    lanes = _combine(bases["lanes"], count["lanes"])
    warps = _combine(bases["warps"], count["warps"])
    threads = (warps[:, None] ^ lanes[None]).reshape(-1, 2)
    places = threads[:, None] ^ registers[None]
    return places[..., 0], places[..., 1]


@dataclass(frozen=True)
class Operands:
    """A product as Triton lays it out.

    `numbers` is shared memory as it stands before: row * K + column of a, 64 K more of b, -1
    elsewhere. `products` has descriptors of a and b and what is transposed, for each 16 of K.
    """

    numbers: np.ndarray
    products: list[tuple[int, int, tuple[int, int]]]


def operands(name: str, halves: int) -> Operands:
    machine = PtxMachine(_said()["products"][name])
    assert machine.fenced and machine.products
    numbers = np.full(halves, -1, np.int64)
    for addresses, values in machine.stores:
        numbers[addresses // 2] = values
    return Operands(numbers, machine.products)


def product_names() -> list[str]:
    """As triton_layouts has them; typed here so that tests have names without Triton."""
    return ["128k_128n", "128m_128k", "64k_64k", "64m_64n", "32m_32n", "32k_32k", "128m_32n",
            "64m_128k"]  # fmt: skip
