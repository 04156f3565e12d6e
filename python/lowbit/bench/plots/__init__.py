"""Pictures of a result file: rooflines, times beside peers, scaling over threads.

Needs matplotlib, which is imported when something is drawn: `pip install 'lowbit[plot]'`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lowbit.bench.arguments import UsageError
from lowbit.bench.saved import Saved

_FORMATS = ("svg", "png")


def draw(saved: Saved, folder: Path) -> list[Path]:
    """Writes each picture as SVG and PNG into the folder, and returns the files.

    UsageError without matplotlib, or for a file with nothing to draw.
    """
    if importlib.util.find_spec("matplotlib") is None:
        need = "matplotlib must be installed to plot, got none"
        raise UsageError(f"{need}; pip install 'lowbit[plot]'")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out must be a folder, got the file {folder}")
    import matplotlib

    from lowbit.bench.plots import roofline, scaling, style, times

    written = []
    with matplotlib.rc_context(style.RC):
        for kind in (roofline, times, scaling):
            for name, figure in kind.figures(saved):
                folder.mkdir(parents=True, exist_ok=True)
                for form in _FORMATS:
                    written.append(folder / f"{name}.{form}")
                    style.save(figure, written[-1])
    if not written:
        raise UsageError(f"{saved.path} must hold timed rows of a matrix product, got none")
    return written
