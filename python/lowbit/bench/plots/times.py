"""Time of each backend and peer, a picture for each number of rows, with each one's own limits."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowbit.bench.plots import style
from lowbit.bench.plots.selection import most_threads, name, products
from lowbit.bench.rows import Row, by, quartiles
from lowbit.bench.saved import Saved

_EXPLANATION = (
    "Median, with the 25th to 75th percentile as a line. Numbers: ms, bits per weight, relative "
    "error of the computation.\nLimits of each: | bytes / bandwidth of memory (cold weights),  "
    "\u25c7 operations / peak."
)


def figures(saved: Saved) -> Iterator[tuple[str, Figure]]:
    """A picture for each M that more than one backend was timed at."""
    rows = most_threads(products(saved.rows))
    for m, found in by(rows, lambda row: row.m).items():
        if len({row.backend for row in found}) > 1:
            yield f"times-m{m}", _figure(saved, m, found)


def _figure(saved: Saved, m: int, rows: list[Row]) -> Figure:
    layers, order = by(rows, lambda row: (row.n, row.k)), _order(rows)
    title = f"Time at M={m}, {rows[0].threads} threads, {saved.machine}"
    size = (4.4, 0.75 + 0.24 * len(order))
    figure, axes = style.panels(len(layers), size, title, _EXPLANATION)
    look = style.Look(rows)
    for number, (panel, ((n, k), found)) in enumerate(zip(axes, layers.items(), strict=True)):
        panel.set_title(f"N={n}  K={k}")
        _draw_bars(panel, found, order, look)
        _draw_names(panel, order if number % style.COLUMNS == 0 else [""] * len(order))
    return figure


def _order(rows: list[Row]) -> list[str]:
    """The names from the fastest to the slowest over all layers, by their share of the fastest."""
    best = {key: min(r.median for r in group) for key, group in by(rows, _layer).items()}
    groups = by(rows, name)
    lag = {n: statistics.fmean(r.median / best[_layer(r)] for r in g) for n, g in groups.items()}
    return sorted(lag, key=lag.__getitem__)


def _layer(row: Row) -> tuple[int, int]:
    return row.n, row.k


def _draw_bars(panel: Axes, rows: list[Row], order: list[str], look: style.Look) -> None:
    right = max(row.median for row in rows) * 1e3
    for row in rows:
        place, median = order.index(name(row)), row.median * 1e3
        low, high = (seconds * 1e3 for seconds in quartiles(row.samples))
        color = look.color(row) if row.own else style.PALE
        panel.barh(place, median, color=color, height=0.72)
        panel.plot([low, high], [place, place], color=style.INK, lw=0.8)
        _draw_own_limits(panel, place, row)
        error = f"{row.compute_error:.0e}".replace("e-0", "e-")
        text = f"{median:.3g}   {row.bits:.3g} b   {error}"
        start = max(high, median) + 0.02 * right
        panel.text(start, place, text, va="center", size=style.SMALL)
    panel.set_xlim(0, 1.55 * right)
    panel.set_xlabel("ms")


def _draw_own_limits(panel: Axes, place: int, row: Row) -> None:
    if row.bandwidth and row.cold:
        memory = row.bytes / row.bandwidth * 1e3
        panel.plot([memory, memory], [place - 0.36, place + 0.36], color=style.INK, lw=1.6)
    if row.peak:
        arithmetic = row.operations / row.peak * 1e3
        diamond = {"mfc": "white", "mec": style.INK, "mew": 0.8, "clip_on": False}
        panel.plot(arithmetic, place, "D", ms=4, zorder=5, **diamond)


def _draw_names(panel: Axes, names: list[str]) -> None:
    """Down the left side; ours in bold."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    for text in panel.get_yticklabels():
        text.set_fontweight("bold" if text.get_text().startswith("lowbit") else "normal")
