"""What `lowbit info` tells: facts about this machine and installation. Nothing in here raises."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowbit import __version__, environment, native, registry
from lowbit.bench import check, gpu

_CPUINFO = Path("/proc/cpuinfo")
_ROOT = Path(__file__).resolve().parents[3]


def info() -> dict[str, Any]:
    """Everything by name; a fact that cannot be had is the reason why not."""
    facts = {
        "lowbit": lambda: __version__,
        "commit": commit,
        "torch": lambda: torch.__version__,
        "triton": lambda: _version("triton"),
        "python": platform.python_version,
        "platform": platform.platform,
        "cpu": _cpu,
        "gpus": _gpus,
        "libraries": _libraries,
        "build": native.build_info,
        "backends": backends,
        "environment": environment.in_force,
    }
    told = {name: attempt(fact) for name, fact in facts.items()}
    if told["commit"] is None:
        del told["commit"]
    return told


def attempt(fact: Callable[[], Any]) -> Any:
    """The fact, or a sentence with the error that it met."""
    try:
        return fact()
    except Exception as error:  # info never fails: whatever is broken is what it is asked for
        return f"cannot tell: {type(error).__name__}: {error}"


def commit() -> str | None:
    """The commit of the checkout that lowbit runs from, else that of its build; None: unknown."""
    if not (_ROOT / ".git").exists():
        return (native.build_info() or {}).get("commit")
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def backends() -> dict[str, dict[str, str]]:
    """op -> backend -> "available", or why not and the remedy."""
    return {
        op: {row.backend: _state(row.backend) for row in definition.rows}
        for op, definition in registry.OPS.items()
    }


def _state(backend: str) -> str:
    return attempt(lambda: check.unavailable(backend)) or "available"


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu() -> dict[str, Any]:
    features = attempt(native.cpu_features)
    if isinstance(features, dict):
        features = " ".join(name for name, present in features.items() if present)
    return {
        "model": cpu_model(),
        "features": features or "unknown: lowbit._C was not built",
        "isa": attempt(native.isa),
        "threads": torch.get_num_threads(),
    }


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{g.name} (sm_{g.major}{g.minor}), driver {gpu.driver()}" for g in found]


def _libraries() -> dict[str, str]:
    return {name: _describe(library) for name, library in native.libraries().items()}


def _describe(library: native.Library) -> str:
    state = f"loaded from {library.path}" if library.loaded else "not loaded"
    return "; ".join(part for part in (state, library.reason, library.remedy) if part)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """The facts as indented text, one a line."""
    shown = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            shown += [f"{indent}{name}:", *lines(value, indent + "  ")]
        else:
            value = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            shown.append(f"{indent}{name}: {'none' if value in (None, '', {}) else value}")
    return shown
