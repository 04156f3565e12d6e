"""Which mistakes are made in a Triton kernel: masks, what masked lanes hold, rounded counts."""

import ast
from collections.abc import Iterator

from tests.mutation.mutants import Change, Mutant, name_mutants

# Position of the mask among the arguments.
MASKED = {"load": 1, "store": 2}
NEIGHBOUR = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}


class Source:
    def __init__(self, text: str):
        lines = text.splitlines(keepends=True)
        assert text.isascii(), "columns of ast are bytes"
        self.text = text
        self.starts = [sum(map(len, lines[:i])) for i in range(len(lines))]

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def __getitem__(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def change(self, rule: str, node: ast.AST, becomes: str) -> Change:
        return Change(rule, *self.span(node), becomes)


def triton_mutants(file: str, text: str) -> list[Mutant]:
    source, located = Source(text), []
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            jitted = any("jit" in source[each] for each in function.decorator_list)
            changes = [*_rounding(source, function), *(_masks(source, function) if jitted else ())]
            located += [(function.name, change) for change in changes]
    return name_mutants(file, text, located)


def _masks(source: Source, function: ast.FunctionDef) -> Iterator[Change]:
    settled = _settled_by_the_compiler(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in MASKED:
                yield from _access(source, node, MASKED[node.func.attr])
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            if any(isinstance(part, ast.Compare) for part in ast.walk(node)):
                yield source.change("mask_part", node, source[node.right])
                yield source.change("mask_part", node, source[node.left])
        elif isinstance(node, ast.Compare) and node not in settled:
            yield from _boundary(source, node)


def _settled_by_the_compiler(function: ast.FunctionDef) -> set[ast.AST]:
    tests = [n.test for n in ast.walk(function) if isinstance(n, (ast.If, ast.IfExp))]
    return {node for test in tests for node in ast.walk(test)}


def _access(source: Source, call: ast.Call, position: int) -> Iterator[Change]:
    keywords = {keyword.arg: keyword for keyword in call.keywords}
    mask = keywords.get("mask") or (call.args[position] if len(call.args) > position else None)
    other = keywords.get("other")
    if mask is not None:
        start = source.span(mask)[0]
        end = max(source.span(each)[1] for each in (mask, other or mask))
        yield Change("mask", start, end, "None")
    if other is not None:
        yield source.change("other", other, "other=85")  # lanes behind the mask hold anything


def _boundary(source: Source, compare: ast.Compare) -> Iterator[Change]:
    if type(compare.ops[0]) not in NEIGHBOUR:
        return
    left, right = source[compare.left], source[compare.comparators[0]]
    yield source.change("off_by_one", compare, f"{left} {NEIGHBOUR[type(compare.ops[0])]} {right}")
    yield source.change("always", compare, f"({left}) == ({left})")
    yield source.change("never", compare, f"({left}) != ({left})")


def _rounding(source: Source, function: ast.FunctionDef) -> Iterator[Change]:
    """Counts that are rounded up: cdiv(a, b), and (a - 1) // b + 1."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and source[node.func].endswith("cdiv"):
            a, b = node.args
            yield source.change("rounding", node, f"(({source[a]}) // ({source[b]}))")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            quotient = node.left
            if (
                isinstance(quotient, ast.BinOp)
                and isinstance(quotient.op, ast.FloorDiv)
                and source[node.right] == "1"
            ):
                yield source.change("rounding", node, source[quotient])
