"""As much of C++ as finding mutation sites takes: tokens, scopes, the extent of expressions.

Texts are formatted by clang-format, so a comparison stands between blanks and the bracket of a
template does not: no parser is needed to tell them apart.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

_SKIPPED = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | ^[ \t]*\#(?:[^\n]*\\\n)*[^\n]* """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_TOKEN = re.compile(
    r"[A-Za-z_]\w*|\d[\w.']*|<<=|>>=|->|::|&&|\|\||[-+*/%&|^=!<>]=|\+\+|--|<<|[^\s\w]"
)
_BINARY = re.compile(r"<=|>=|==|!=|[<>&|^]")
COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}
ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
OPENING, CLOSING = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}


@dataclass(frozen=True)
class Token:
    text: str
    start: int
    end: int
    binary: bool  # an operator between blanks: never part of a template's brackets


@dataclass(frozen=True)
class Function:
    name: str  # with its class
    head: int  # tokens: the first of the declaration,
    begin: int  # the one behind the parameters,
    end: int  # the closing brace
    constexpr: bool


class CppText:
    def __init__(self, text: str):
        self.text = text
        # Same length, so that positions are those of the text.
        blank = _SKIPPED.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
        self.tokens = [
            Token(m[0], m.start(), m.end(), self._is_binary(blank, m))
            for m in _TOKEN.finditer(blank)
        ]
        self.partner = self._match_brackets()

    @staticmethod
    def _is_binary(blank: str, m: re.Match) -> bool:
        around = blank[m.start() - 1 : m.start()] + blank[m.end() : m.end() + 1]
        return bool(_BINARY.fullmatch(m[0])) and around.isspace() and len(around) == 2

    def _match_brackets(self) -> dict[int, int]:
        partner, opened = {}, []
        for i, token in enumerate(self.tokens):
            if token.text in OPENING:
                opened.append(i)
            elif token.text in CLOSING:
                other = opened.pop()
                partner[i], partner[other] = other, i
        return partner

    def source(self, begin: int, end: int) -> str:
        """The text of tokens begin <= i < end."""
        return self.text[self.tokens[begin].start : self.tokens[end - 1].end]

    def is_comparison(self, i: int) -> bool:
        return self.tokens[i].text in COMPARISONS and self.tokens[i].binary

    # ---- extents ----

    def scan(self, i: int, step: int, stops) -> int:
        """From token i on, over whole brackets, to the first token that ends the expression."""
        entered, left = (OPENING, CLOSING) if step > 0 else (CLOSING, OPENING)
        while 0 <= i < len(self.tokens):
            token = self.tokens[i]
            if token.text in left or token.text in stops:
                return i
            if token.text in "&|^" and token.binary and "&&" in stops:
                return i
            i = self.partner[i] + step if token.text in entered else i + step
        return i

    def extent(self, i: int, stops: set[str]) -> tuple[int, int]:
        """The operands around operator i, and itself."""
        return self.scan(i - 1, -1, stops) + 1, self.scan(i + 1, 1, stops)

    def split(self, begin: int, end: int, operators: set[str]) -> list[tuple[int, int]]:
        parts, i = [], begin
        while i < end:
            stop = min(end, self.scan(i, 1, operators))
            parts.append((i, stop))
            i = stop + 1
        return parts

    def arguments(self, opening: int) -> list[tuple[int, int]]:
        closing = self.partner[opening]
        return self.split(opening + 1, closing, {","}) if closing > opening + 1 else []

    # ---- scopes ----

    @cached_property
    def functions(self) -> list[Function]:
        found, classes, i, head = [], [], 0, 0
        while i < len(self.tokens):
            text = self.tokens[i].text
            if text == "(" or (text == "{" and i > head and self.tokens[i - 1].text == "="):
                i = self.partner[i]
            elif text == "{":
                name, kind, at = self._declared(head, i)
                if kind == "function":
                    closing, words = self.partner[i], [t.text for t in self.tokens[head:i]]
                    name = "::".join([c for c, _ in classes] + [name])
                    evaluated = "constexpr" in words and "LOWBIT_DEVICE" not in words
                    found.append(Function(name, head, self.partner[at] + 1, closing, evaluated))
                    i = closing
                elif kind == "class":
                    classes.append((name, self.partner[i]))
                elif kind == "other":
                    i = self.partner[i]
                head = i + 1
            elif text == "}":
                classes = [(c, end) for c, end in classes if end != i]
                head = i + 1
            elif text == ";":
                head = i + 1
            i += 1
        return found

    def _declared(self, head: int, brace: int) -> tuple[str, str, int]:
        """What the brace opens: its name, one of namespace, class, function or other, and the
        token behind the name."""
        i = head
        while i < brace:
            text, behind = self.tokens[i].text, self.tokens[i + 1].text
            if text == "template":
                i = self.behind_template(i + 1)
                continue
            if text in ("namespace", "extern"):
                return "", "namespace", i
            if text in ("class", "struct", "union"):
                return behind, "class", i
            if text == "enum":
                return behind, "other", i
            if behind == "(" and text[0].isalpha() | (text[0] == "_"):
                if not text.isupper():
                    return text, "function", i + 1
                i = self.partner[i + 1]
            i += 1
        return "", "other", i

    def behind_template(self, i: int) -> int:
        """Token i opens a template's brackets: the one behind them."""
        depth = 0
        while True:
            token = self.tokens[i]
            if not token.binary:
                depth += {"<": 1, ">": -1}.get(token.text, 0)
            i = self.partner[i] + 1 if token.text in OPENING else i + 1
            if depth == 0:
                return i

    def function_at(self, token: int) -> Function | None:
        starts = [f.head for f in self.functions]
        i = bisect_right(starts, token) - 1
        return self.functions[i] if i >= 0 and token < self.functions[i].end else None
