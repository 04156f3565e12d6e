"""Rate over arithmetic intensity, a panel a layer, under the limits of memory and of arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lowbit.bench.plots import style
from lowbit.bench.plots.selection import most_threads, products
from lowbit.bench.rows import Row, by
from lowbit.bench.saved import Saved

_EXPLANATION = (
    "Operations of the product per second (median) over operations per byte that must move; along "
    "a line from left to right: more rows M.\nBlack: what the machine can do, its read bandwidth "
    "and the peak of each arithmetic."
)
# Peaks closer than this share one label.
_CLOSE = 1.4


def figures(saved: Saved) -> Iterator[tuple[str, Figure]]:
    """The one roofline."""
    rows = most_threads(products(saved.rows))
    if not rows:
        return
    layers = by(rows, lambda row: (row.n, row.k))
    title = f"Roofline, {rows[0].threads} threads, {saved.machine}"
    figure, axes = style.panels(len(layers), (4.4, 3.4), title, _EXPLANATION)
    look = style.Look(rows)
    for panel, ((n, k), found) in zip(axes, layers.items(), strict=True):
        panel.set_title(f"N={n}  K={k}")
        _draw_limits(panel, found)
        for line in by(found, lambda row: (row.backend, row.mode)).values():
            line = sorted(line, key=lambda row: row.m)
            panel.plot(*_points(line), **look.line(line[0]))
        _draw_ends(panel, [row for row in found if row.own])
        panel.set_xlabel("operations per byte")
    for panel in axes[:: style.COLUMNS]:
        panel.set_ylabel("Gop/s")
    style.legend(figure, axes)
    yield "roofline", figure


def _points(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [_intensity(row) for row in rows], [_rate(row) for row in rows]


def _intensity(row: Row) -> float:
    return row.flops / row.bytes


def _rate(row: Row) -> float:
    return row.flops / row.median / 1e9


def _draw_limits(panel: Axes, rows: list[Row]) -> None:
    bandwidth = statistics.median(row.bandwidth for row in rows) / 1e9
    left, right = min(map(_intensity, rows)) / 2, max(map(_intensity, rows)) * 8
    roofs = _roofs(rows)
    top = max([*roofs.values(), *map(_rate, rows)])
    corner = min(top / bandwidth, right)
    panel.plot([left, corner], [left * bandwidth, corner * bandwidth], color=style.INK, lw=1.3)
    for peak in roofs.values():
        start = max(peak / bandwidth, left)
        panel.plot([start, right], [peak, peak], color=style.INK, lw=1.0, ls=(0, (4, 2)))
    for peak, text in _labels(roofs):
        panel.annotate(
            text, (right, peak), (0, 2), textcoords="offset points", ha="right", size=style.SMALL
        )
    text = f"memory {bandwidth:.0f} GB/s"
    panel.text(0.02, 0.98, text, transform=panel.transAxes, va="top", size=style.SMALL)
    panel.set_xscale("log", base=4)
    panel.set_yscale("log")
    panel.set_xlim(left, right)
    panel.set_ylim(min(map(_rate, rows)) / 2, top * 2)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _roofs(rows: list[Row]) -> dict[str, float]:
    """Gop/s of the product at the peak of each arithmetic of the rows."""
    roofs = {}
    for row in rows:
        if row.peak:
            planes = row.operations // row.flops
            name = row.arithmetic if planes == 1 else f"{row.arithmetic} in {planes} planes"
            roofs[name] = row.peak / planes / 1e9
    return roofs


def _labels(roofs: dict[str, float]) -> Iterator[tuple[float, str]]:
    """(height, text) of the roofs, those close to each other in one."""
    names: list[str] = []
    for name, peak in sorted(roofs.items(), key=lambda item: item[1]):
        if names and peak > _CLOSE * roofs[names[0]]:
            yield roofs[names[-1]], ", ".join(f"{n} {roofs[n]:.0f}" for n in names)
            names = []
        names.append(name)
    if names:
        yield roofs[names[-1]], ", ".join(f"{n} {roofs[n]:.0f}" for n in names)


def _draw_ends(panel: Axes, rows: list[Row]) -> None:
    """The least and the most rows of ours, by number."""
    if not rows:
        return
    for row, place in ((rows[0], (6, -9)), (rows[-1], (7, -3))):
        panel.annotate(
            f"M={row.m}",
            (_intensity(row), _rate(row)),
            place,
            textcoords="offset points",
            size=style.SMALL,
            weight="bold",
            zorder=5,
        )
