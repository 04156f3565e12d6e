"""What the pictures have in common: type, colours, panels, and how they are saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowbit.bench.plots.selection import name
from lowbit.bench.rows import Row

INK, GREY, PALE = "#222222", "#70757d", "#b9c0ca"
SMALL = 7.5
COLUMNS = 3
# Ours in full colour (Okabe and Ito's, which differ for colour-blind readers), peers muted.
_MODES = {"int8x2": "#d55e00", "bf16": "#0072b2", "exact": "#009e73", "fp16": "#cc79a7"}
_PEERS = ("#7a8699", "#b08968", "#6d9773", "#a17c9b", "#c2a83e", "#5f9ea0", "#9c6b6b")
_MARKERS = "sD^vP*X<>"  # as many that a colour and a marker together are unique
_HEADER, _LEAST_WIDTH = 0.85, 7.5  # inches
RC = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "lowbit",
}


def panels(
    count: int, size: tuple[float, float], title: str, explanation: str
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of a size in inches, below a headline and what is shown."""
    columns = min(COLUMNS, count)
    lines = math.ceil(count / columns)
    width, height = max(columns * size[0], _LEAST_WIDTH), lines * size[1] + _HEADER
    figure = Figure((width, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - _HEADER / height), hspace=0.08)
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", size=13, weight="bold")
    figure.text(0.1 / width, 1 - 0.38 / height, explanation, va="top", color=GREY)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def save(figure: Figure, path: Path) -> None:
    """Write a picture in the format of its suffix; the same figure gives the same bytes."""
    undated = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=160, facecolor="white", metadata=undated)


class Look:
    """Colour and marker of each name; a name looks the same in every panel."""

    def __init__(self, rows: Sequence[Row]):
        self._peers = sorted({row.backend for row in rows if not row.own})

    def color(self, row: Row) -> str:
        """The colour of the row's line."""
        if row.own:
            return _MODES.get(row.mode, INK)
        return _PEERS[self._peers.index(row.backend) % len(_PEERS)]

    def line(self, row: Row) -> dict:
        """Arguments of a line with markers."""
        if row.own:
            look = {"marker": "o", "markersize": 5.0, "linewidth": 2.0, "zorder": 4}
        else:
            marker = _MARKERS[self._peers.index(row.backend) % len(_MARKERS)]
            look = {"marker": marker, "markersize": 4.5, "linewidth": 1.0, "zorder": 3}
        return {"color": self.color(row), "label": name(row), **look}


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below all panels, each name once, ours first."""
    handles = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / 2.4)))
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=columns, frameon=False
    )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, moved up as little as it takes to keep labels a gap apart."""
    moved, last = {}, -math.inf
    for height, place in sorted((height, place) for place, height in enumerate(heights)):
        last = moved[place] = max(height, last + gap)
    return [moved[place] for place in range(len(heights))]
