"""Which mistakes are made in a C++ kernel text: a table for calls, and rules for predicates."""

from collections.abc import Iterator
from pathlib import Path

from tests.mutation.cpp_text import ASSIGNMENTS, CppText
from tests.mutation.mutants import Change, Mutant, name_mutants

# Call statements -> what each becomes, of the arguments {0}, {1} and the template argument {t}.
# "" deletes the statement.
CALLS = {
    # order between threads
    "sync_block": ("",),
    "sync_warp": ("",),
    "sync_cluster": ("",),
    "sync_named_barrier": ("", "sync_named_barrier({0}, ({1}) - 32);"),
    "arrive_named_barrier": ("", "arrive_named_barrier({0}, ({1}) - 32);"),
    "wait_at_least": ("", "wait_at_least({0}, ({1}) - 1);"),
    "store_release": ("", "*({0}) = {1};"),
    "add_acquire_release": ("", "atomic_add({0}, {1});"),
    "atomic_add": ("",),
    "atomic_max": ("",),
    # order between threads and asynchronous units
    "fence_async_proxy": ("",),
    "fence_mbarrier_init": ("",),
    "fence_wgmma": ("",),
    "commit_async_copies": ("",),
    "commit_bulk_stores": ("",),
    "commit_wgmma": ("",),
    "wait_async_copies": ("", "wait_async_copies<({t}) + 1>();"),
    "wait_bulk_stores": ("", "wait_bulk_stores<({t}) + 1>();"),
    "wait_wgmma": ("", "wait_wgmma<({t}) + 1>();"),
    # mbarriers
    "init_mbarrier": ("", "init_mbarrier({0}, ({1}) + 1);", "init_mbarrier({0}, ({1}) - 1);"),
    "invalidate_mbarrier": ("",),
    "arrive_mbarrier": ("", "arrive_mbarrier({0}); arrive_mbarrier({0});"),
    "arrive_remote_mbarrier": ("",),
    "arrive_mbarrier_expecting": (
        "",
        "arrive_mbarrier({0});",
        "arrive_mbarrier_expecting({0}, ({1}) + 16);",
        "arrive_mbarrier_expecting({0}, ({1}) - 16);",
    ),
    "wait_mbarrier": ("", "wait_mbarrier({0}, ({1}) ^ 1);"),
    # registers between warpgroups
    "grow_registers": ("",),
    "shrink_registers": ("",),
    # fillings of what is read beyond an end
    "memset": ("",),
}
# The same for calls whose result is used.
USED_CALLS = {
    "load_acquire": ("*({0})",),
    "add_acquire_release": ("atomic_add({0}, {1})",),
    "min": ("({0})", "({1})"),
    "at_most": ("({0})", "({1})"),
    "min_extent": ("({0})", "({1})"),
}
# A comparison off by one.
NEIGHBOUR = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}

_OUTER = {";", ",", "?", ":", "return", *ASSIGNMENTS}
_LOGIC = {"&&", "||"}
_BEFORE_STATEMENT = {";", "{", "}", ")", "else", ":"}


def cpp_mutants(file: str, text: str) -> list[Mutant]:
    cpp = CppText(text)
    # Kernel texts call constexpr functions with constants; those of config headers run.
    runs = Path(file).suffix == ".h"
    located = []
    for change in dict.fromkeys([*_calls(cpp), *_resets(cpp), *_fillings(cpp), *_conditions(cpp)]):
        token = next(i for i, t in enumerate(cpp.tokens) if t.start >= change.start)
        function = cpp.function_at(token)
        if function is None or (function.constexpr and not runs):
            continue
        if token >= function.begin:
            located.append((function.name, change))
    return name_mutants(file, text, located)


def _change(cpp: CppText, rule, begin, end, becomes, is_statement=False) -> Change:
    start, stop = cpp.tokens[begin].start, cpp.tokens[end - 1].end
    return Change(rule, start, stop, becomes, is_statement)


# ---- calls ----


def _calls(cpp: CppText) -> Iterator[Change]:
    for i, token in enumerate(cpp.tokens):
        if token.text not in CALLS and token.text not in USED_CALLS:
            continue
        first = i - 2 if cpp.tokens[i - 1].text == "::" else i
        opening, template = _opening(cpp, i)
        if opening is None or cpp.tokens[first - 1].text in (".", "->"):
            continue
        parts = [cpp.source(*part) for part in cpp.arguments(opening)]
        behind = cpp.partner[opening] + 1
        whole = cpp.tokens[first - 1].text in _BEFORE_STATEMENT and cpp.tokens[behind].text == ";"
        for pattern in CALLS.get(token.text, ()) if whole else USED_CALLS.get(token.text, ()):
            if "{t}" in pattern and not template:
                continue
            becomes = pattern.format(*parts, t=template)
            yield _change(cpp, token.text, first, behind + whole, becomes, whole)


def _opening(cpp: CppText, i: int) -> tuple[int | None, str]:
    """Of the call of name i: its parenthesis, and the template arguments as text."""
    opening = i + 1
    if cpp.tokens[opening].text == "<" and not cpp.tokens[opening].binary:
        opening = cpp.behind_template(opening)
    if cpp.tokens[opening].text != "(":
        return None, ""
    return opening, cpp.source(i + 2, opening - 1) if opening > i + 1 else ""


# ---- counters and flags set back, zeros ----


def _resets(cpp: CppText) -> Iterator[Change]:
    """Statements `x = 0;` and `x ^= 1;`, no declarations."""
    for i, token in enumerate(cpp.tokens):
        if (token.text, cpp.tokens[min(i + 1, len(cpp.tokens) - 1)].text) not in (
            ("=", "0"),
            ("^=", "1"),
        ):
            continue
        first = cpp.scan(i - 1, -1, _BEFORE_STATEMENT | {","}) + 1
        declares = any(
            a.text[-1].isalnum() and b.text[0].isalpha()
            for a, b in zip(cpp.tokens[first:i], cpp.tokens[first + 1 : i], strict=False)
        )
        if cpp.tokens[i + 2].text == ";" and not declares and cpp.tokens[first - 1].text != ",":
            yield _change(cpp, "reset", first, i + 3, "", True)


def _fillings(cpp: CppText) -> Iterator[Change]:
    """Arrays that begin as zeros: `T x[4] = {};` and then garbage."""
    for i, token in enumerate(cpp.tokens):
        if token.text == "]" and [t.text for t in cpp.tokens[i + 1 : i + 5]] == [
            "=",
            "{",
            "}",
            ";",
        ]:
            name = cpp.partner[i] - 1
            while cpp.tokens[name].text == "]":
                name = cpp.partner[name] - 1
            array, end = cpp.tokens[name].text, cpp.tokens[i + 4].end
            garbage = f"std::memset({array}, 0x55, sizeof({array}));"
            yield Change("zeros", end, end, garbage, True)


# ---- predicates ----


def _conditions(cpp: CppText) -> Iterator[Change]:
    skipped = _constant_expressions(cpp)
    for i, token in enumerate(cpp.tokens):
        if not cpp.is_comparison(i) or i in skipped:
            continue
        if token.text in NEIGHBOUR:
            yield _off_by_one(cpp, i)
    for begin, end in sorted(_atoms(cpp)):
        if begin in skipped:
            continue
        for rule, becomes in (("always", "true"), ("never", "false")):
            if cpp.source(begin, end) != becomes:
                yield _change(cpp, rule, begin, end, becomes)


def _off_by_one(cpp: CppText, i: int) -> Change:
    begin, end = cpp.extent(i, _OUTER | _LOGIC | {"==", "!="})
    left, right = cpp.source(begin, i), cpp.source(i + 1, end)
    return _change(cpp, "off_by_one", begin, end, f"{left} {NEIGHBOUR[cpp.tokens[i].text]} {right}")


def _atoms(cpp: CppText) -> set[tuple[int, int]]:
    """Conditions without && and ||, but for those of `for`: endless loops tell nothing more."""
    atoms = set()
    for i, token in enumerate(cpp.tokens):
        if token.text in ("if", "while") and cpp.tokens[i + 1].text == "(":
            atoms |= _leaves(cpp, i + 2, cpp.partner[i + 1])
        elif token.text == "?":
            begin = cpp.scan(i - 1, -1, _OUTER) + 1
            atoms |= _leaves(cpp, begin, i)
        elif token.text in _LOGIC:
            atoms |= _leaves(cpp, *cpp.extent(i, _OUTER))
        elif cpp.is_comparison(i):
            atoms.add(cpp.extent(i, _OUTER | _LOGIC))
    loops = [i for i, token in enumerate(cpp.tokens) if token.text == "for"]
    heads = [range(i, cpp.partner[i + 1]) for i in loops]
    return {atom for atom in atoms if not any(atom[0] in head for head in heads)}


def _leaves(cpp: CppText, begin: int, end: int) -> set[tuple[int, int]]:
    while cpp.tokens[begin].text == "(" and cpp.partner[begin] == end - 1:
        begin, end = begin + 1, end - 1
    parts = cpp.split(begin, end, _LOGIC)
    if len(parts) == 1:
        return {(begin, end)}
    return set().union(*(_leaves(cpp, *part) for part in parts))


def _constant_expressions(cpp: CppText) -> set[int]:
    """Tokens that the compiler evaluates: no run goes the other way there."""
    skipped = set()
    for i, token in enumerate(cpp.tokens):
        if token.text == "static_assert":
            skipped |= set(range(i, cpp.partner[i + 1]))
        elif token.text == "constexpr":
            stop = cpp.scan(i + 1, 1, {";", "=", "("})
            if cpp.tokens[i - 1].text == "if":
                skipped |= set(range(i, cpp.partner[i + 1]))
            elif cpp.tokens[stop].text == "=":
                skipped |= set(range(i, cpp.scan(stop, 1, {";"})))
    return skipped
