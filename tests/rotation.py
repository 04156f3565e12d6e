"""Slow tests that take turns: `pytest -m slow --share N` runs one in N, others with each commit.

For CI, to which a seeded mistake is worth less than its time. Tests marked `every_time` are run
whenever they are selected.
"""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def turn(share: int, root: Path = ROOT) -> int:
    """Which of so many shares the commit has; the first outside of a checkout."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout, 16) % share if done.returncode == 0 else 0


def left_out(items: list[pytest.Item], share: int) -> list[pytest.Item]:
    """Of these tests those that have their turn with other commits."""
    rotating = [i for i in items if i.get_closest_marker("slow") and not every_time(i)]
    run = turn(share) if rotating else 0
    return [item for number, item in enumerate(rotating) if number % share != run]


def every_time(item: pytest.Item) -> bool:
    return item.get_closest_marker("every_time") is not None
