"""Runs the whole-number part of a straight PTX text for all threads of a block at once."""

import re
from collections.abc import Callable

import numpy as np

THREADS = 128

# By the opcode or its first part: operands to the result, before it is cut to its width.
_OPERATIONS: dict[str, Callable] = {
    "mov": lambda a: a,
    "cvt": lambda a: a,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "shl": lambda a, b: a << b,
    "shr": lambda a, b: a >> b,
    "mul": lambda a, b: a * b,
    "mad": lambda a, b, c: a * b + c,
    "bfe.u32": lambda a, first, size: a >> first & ((1 << size) - 1),
    # The sign is the highest bit of the field.
    "bfe.s32": lambda a, first, size: (
        ((a >> first & ((1 << size) - 1)) ^ 1 << size - 1) - (1 << size - 1)
    ),
}


class PtxMachine:
    """`stores` has the addresses and values of st.shared.b16, `products` the wgmma as it is given.

    Shared memory starts at address 0. What comes from floats is unknown, and an error where a
    place depends on it.
    """

    def __init__(self, text: str):
        self._registers: dict[str, np.ndarray | None] = {}
        self.stores: list[tuple[np.ndarray, np.ndarray]] = []
        self.products: list[tuple[int, int, tuple[int, int]]] = []
        self.fenced = False
        body = text[text.index(".entry") :]
        for line in body.splitlines():
            statement = re.sub(r"//.*", "", line).strip().rstrip(";")
            if statement.startswith("fence.proxy.async"):
                self.fenced = True
            elif statement.startswith("st.shared"):
                self._store(statement)
            elif statement.startswith("wgmma.mma_async"):
                self._product(statement)
            elif statement and not statement.startswith((".", "@", "$", "{", "}", ")")):
                self._compute(statement)

    def _value(self, operand: str) -> np.ndarray | None:
        operand = operand.strip()
        if operand == "%tid.x":
            return np.arange(THREADS, dtype=object)
        if operand == "global_smem":
            return np.zeros(THREADS, dtype=object)
        if re.fullmatch(r"-?\d+", operand):
            return np.full(THREADS, int(operand), dtype=object)
        return self._registers.get(operand)

    def _compute(self, statement: str) -> None:
        opcode, _, rest = statement.partition(" ")
        target, *operands = [part.strip() for part in rest.split(",")]
        operation = _OPERATIONS.get(opcode, _OPERATIONS.get(opcode.split(".")[0]))
        values = [self._value(operand) for operand in operands]
        width = re.search(r"\.[bus](\d+)", opcode)
        if operation is None or width is None or any(value is None for value in values):
            self._registers[target] = None
            return
        bits = int(width[1]) * (2 if ".wide" in opcode else 1)
        self._registers[target] = operation(*values) & ((1 << bits) - 1)

    def _known(self, operand: str) -> np.ndarray:
        value = self._value(operand)
        if value is None:
            raise ValueError(f"{operand} must be a whole number that the text works out")
        return value

    def _store(self, statement: str) -> None:
        found = re.fullmatch(r"st\.shared\.[bu]16\s+\[(%\w+)(?:\+(\d+))?\], (%\w+)", statement)
        if found is None:
            raise ValueError(f"a store must be of 16 bits, got {statement}")
        address = self._known(found[1]) + int(found[2] or 0)
        self.stores.append((address.astype(np.int64), self._known(found[3]).astype(np.int64)))

    def _product(self, statement: str) -> None:
        tail = statement[statement.index("}") + 1 :].strip(", ").split(", ")
        a, b = (int(self._known(operand)[0]) for operand in tail[:2])
        self.products.append((a, b, (int(tail[-2]), int(tail[-1]))))
