"""All mutants of a text in one program, which asks the environment which of them to be.

Compiling takes longer than a kill by far, so it is done once for all mutants and not for each
(Untch, Offutt and Harrold, "Mutation analysis using mutant schemata", ISSTA 1993). Mutant 0 is the
text as it is.
"""

from collections import defaultdict

from tests.mutation.mutants import Change

VARIABLE = "LOWBIT_MUTANT"
# Included before the text. Reads of a constant are no events for ThreadSanitizer to order.
PRELUDE = f"""#pragma once
#include <cstdlib>
#include <type_traits>
namespace lowbit_mutant {{
inline const long number = std::getenv("{VARIABLE}") ? std::atol(std::getenv("{VARIABLE}")) : 0;
constexpr bool is(long other) {{ return !std::is_constant_evaluated() && number == other; }}
}}
"""


def with_all(text: str, numbered: dict[int, Change]) -> str:
    """The text with every change, each behind its number. Spans are nested or apart."""
    spans = defaultdict(list)
    for number, change in sorted(numbered.items()):
        spans[change.start, -change.end].append((number, change))
    ordered = sorted(spans)
    body, rest = _within(text, 0, len(text), ordered, 0, spans)
    assert rest == len(ordered), "changes of a text must be nested or apart"
    return body


def _within(text, start, end, ordered, at, spans) -> tuple[str, int]:
    """The characters from start to end with the changes among them, from ordered[at] on."""
    parts, position = [], start
    while at < len(ordered) and ordered[at][0] < end:
        first, last = ordered[at][0], -ordered[at][1]
        assert position <= first and last <= end, text[first:last]
        changes = spans[ordered[at]]
        inner, at = _within(text, first, last, ordered, at + 1, spans)
        parts += [text[position:first], _choice(inner, changes)]
        position = last
    return "".join([*parts, text[position:end]]), at


def _choice(original: str, changes: list[tuple[int, Change]]) -> str:
    if changes[0][1].is_statement:
        tests = [f"if (lowbit_mutant::is({n})) {{ {c.becomes} }} else" for n, c in changes]
        return f"{{ {' '.join(tests)} {{ {original} }} }}"
    if any(c.becomes in ("true", "false") for _, c in changes):
        original = f"static_cast<bool>({original})"
    tests = [f"lowbit_mutant::is({n}) ? ({c.becomes}) :" for n, c in changes]
    return f"({' '.join(tests)} ({original}))"
