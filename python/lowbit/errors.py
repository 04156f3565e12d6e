"""The one sentence in which lowbit refuses a call; csrc/torch_checks.h builds the same text."""

from typing import Any, NoReturn


def sentence(where: str, argument: str, need: str, got: Any, remedy: str = "") -> str:
    """`<op>: <argument> must <need>, got <value>`, then the remedy where there is one."""
    return f"{where}: {argument} must {need}, got {got}" + (f"; {remedy}" if remedy else "")


def refuse(
    where: str,
    argument: str,
    need: str,
    got: Any,
    remedy: str = "",
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raise `error` with the sentence."""
    raise error(sentence(where, argument, need, got, remedy))
