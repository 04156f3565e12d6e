"""Speed over the number of threads, a panel a case."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowbit.bench.plots import style
from lowbit.bench.plots.selection import products
from lowbit.bench.rows import Row, by
from lowbit.bench.saved import Saved

_EXPLANATION = "Time at the fewest threads over time (medians). Grey: in proportion to the threads."


def figures(saved: Saved) -> Iterator[tuple[str, Figure]]:
    """The one picture, where a case was timed at several thread counts."""
    lines = {}
    for entry, rows in by(products(saved.rows), _entry).items():
        if len(rows) > 1:
            lines.setdefault(entry[0], []).append(sorted(rows, key=lambda row: row.threads))
    if not lines:
        return
    title = f"Scaling over threads, {saved.machine}"
    figure, axes = style.panels(len(lines), (4.4, 3.4), title, _EXPLANATION)
    look = style.Look([row for case in lines.values() for line in case for row in line])
    for panel, (case, found) in zip(axes, lines.items(), strict=True):
        panel.set_title(case)
        _draw_case(panel, found, look)
    style.legend(figure, axes)
    yield "scaling", figure


def _entry(row: Row) -> tuple[str, str, str]:
    return row.case, row.backend, row.mode


def _draw_case(panel: Axes, lines: list[list[Row]], look: style.Look) -> None:
    threads = sorted({row.threads for line in lines for row in line})
    most = threads[-1] / threads[0]
    panel.plot(threads, [t / threads[0] for t in threads], color=style.GREY, ls=(0, (4, 2)), lw=1.0)
    gains = [[line[0].median / row.median for row in line] for line in lines]
    labels = style.spread([gain[-1] for gain in gains], 0.05 * most)
    for line, gain, label in zip(lines, gains, labels, strict=True):
        panel.plot([row.threads for row in line], gain, **look.line(line[0]))
        place = (line[-1].threads + 0.03 * (threads[-1] - threads[0]), label)
        panel.annotate(f"{gain[-1]:.2f}", place, va="center", color=look.color(line[0]))
    panel.set_xticks(threads)
    panel.set_xlim(right=threads[-1] + 0.12 * (threads[-1] - threads[0]))
    panel.set_ylim(0, 1.08 * max(most, *labels))
    panel.set_xlabel("threads")
    panel.set_ylabel("times as fast")
