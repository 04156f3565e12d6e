"""The loops of a kernel, found in its machine code."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

# mma.sync (HMMA, IMMA, QMMA, OMMA, ...), wgmma (HGMMA, ...), tcgen05.mma (UTCHMMA, ...).
MMA = re.compile(r"(UTC)?[A-Z]G?MMA")
GLOBAL_LOADS = {"LDG", "LD", "LDGSTS", "UTMALDG", "UBLKCP"}
GUESSED_TURNS = 10  # of a loop, as compilers guess without a profile


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    opcode: str  # with its modifiers
    operands: str

    @cached_property
    def plain(self) -> str:
        return self.opcode.partition(".")[0]

    @property
    def target(self) -> int | None:
        """The address that a branch names; its last operand."""
        found = re.search(r"(?:^|[\s,])0x([0-9a-f]+)\s*$", self.operands)
        return int(found[1], 16) if found else None

    @property
    def conditional(self) -> bool:
        """Some threads may go on to the next instruction: a guard, or a condition as operand."""
        return bool(self.predicate) or "," in self.operands

    def is_mma(self) -> bool:
        return MMA.fullmatch(self.plain) is not None


@dataclass(frozen=True)
class Loop:
    """One loop, with the loops inside it."""

    begin: int  # address of its header
    instructions: int
    mix: Counter  # of plain opcodes
    mma: int

    @property
    def per_mma(self) -> float | None:
        return self.instructions / self.mma if self.mma else None


def _successors(code: list[Instruction]) -> list[list[int]]:
    """For each instruction the indices of those that may follow it."""
    index = {instruction.address: i for i, instruction in enumerate(code)}
    after: list[list[int]] = []
    indirect, reconvergence = [], {}
    for i, instruction in enumerate(code):
        target = index.get(instruction.target) if instruction.target is not None else None
        falls, jumps = [i + 1] if i + 1 < len(code) else [], []
        match instruction.plain:
            case "BSSY":
                reconvergence[instruction.operands.split(",")[0]] = target
            case "BSYNC":
                jumps = [reconvergence.get(instruction.operands.strip())]
            case "CALL":
                jumps = [target]
            case "BRA" | "JMP":
                jumps = [target]
                falls = falls if instruction.conditional else []
            case "EXIT" | "RET":
                falls = falls if instruction.predicate else []
            case "BRX" | "BRXU" | "JMX" | "JMXU":
                falls = falls if instruction.predicate else []
                indirect.append(i)
        after.append(falls + [jump for jump in jumps if jump is not None])
    # An indirect branch may go wherever nothing else leads.
    reached = {target for targets in after for target in targets}
    orphans = [i for i in range(1, len(code)) if i not in reached]
    for i in indirect:
        after[i] = after[i] + orphans
    return after


def _reverse_postorder(after: list[list[int]]) -> list[int]:
    order, seen, stack = [], {0}, [(0, iter(after[0]))]
    while stack:
        node, targets = stack[-1]
        fresh = next((target for target in targets if target not in seen), None)
        if fresh is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(fresh)
            stack.append((fresh, iter(after[fresh])))
    return order[::-1]


def _predecessors(after: list[list[int]], order: list[int]) -> dict[int, list[int]]:
    before: dict[int, list[int]] = {node: [] for node in order}
    for node in order:
        for target in after[node]:
            before[target].append(node)
    return before


def _immediate_dominators(order: list[int], before: dict[int, list[int]]) -> dict[int, int]:
    """Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", 2001."""
    rank = {node: i for i, node in enumerate(order)}
    dominator = {order[0]: order[0]}

    def common(a: int, b: int) -> int:
        while a != b:
            if rank[a] > rank[b]:
                a = dominator[a]
            else:
                b = dominator[b]
        return a

    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            known = [each for each in before[node] if each in dominator]
            new = known[0]
            for each in known[1:]:
                new = common(new, each)
            changed |= dominator.get(node) != new
            dominator[node] = new
    return dominator


def _dominates(dominator: dict[int, int], a: int, b: int) -> bool:
    while b != a and dominator[b] != b:
        b = dominator[b]
    return a == b


def _bodies(code: list[Instruction]) -> dict[int, set[int]]:
    """The natural loops: for each header the indices of its instructions."""
    after = _successors(code)
    order = _reverse_postorder(after)
    before = _predecessors(after, order)
    dominator = _immediate_dominators(order, before)
    rank = {node: i for i, node in enumerate(order)}
    bodies: dict[int, set[int]] = {}
    for node in order:
        for header in after[node]:
            if rank[header] > rank[node] or not _dominates(dominator, header, node):
                continue
            body = bodies.setdefault(header, {header})
            waiting = [node]
            while waiting:
                member = waiting.pop()
                if member not in body:
                    body.add(member)
                    waiting += before[member]
    return bodies


def _matrix_work(code: list[Instruction], bodies: dict[int, set[int]], header: int) -> int:
    """MMA of a loop that are in none of the loops inside, each as often as it may run."""
    body = bodies[header]
    own = body.difference(*(other for other in bodies.values() if other < body))
    around = sum(body < other for other in bodies.values())
    return sum(code[i].is_mma() for i in own) * GUESSED_TURNS**around


def hot_loop(code: list[Instruction]) -> Loop | None:
    """The loop that does most of the matrix work, else the one with most loads from global memory.

    An MMA counts for the innermost loop around it: for the loop over K of a GEMM, not the one over
    tiles around it nor a wait for a barrier inside.
    """
    bodies = _bodies(code)
    if not bodies:
        return None

    def work(header: int) -> tuple[int, int, int]:
        loads = sum(code[i].plain in GLOBAL_LOADS for i in bodies[header])
        return _matrix_work(code, bodies, header), loads, -len(bodies[header])

    hot = max(bodies, key=work)
    mix = Counter(code[i].plain for i in bodies[hot])
    mma = sum(code[i].is_mma() for i in bodies[hot])
    return Loop(code[hot].address, len(bodies[hot]), mix, mma)
