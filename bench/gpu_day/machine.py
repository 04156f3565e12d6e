"""The GPU of this machine, and programs of the CUDA toolkit, without importing torch."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess

_FIELDS = "name,driver_version,compute_cap"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """capability: such as "9.0"."""

    name: str
    driver: str
    capability: str

    @property
    def slug(self) -> str:
        """The folder of its results: "NVIDIA H200" is h200."""
        words = re.findall(r"[a-z0-9]+", self.name.lower())
        return "-".join(word for word in words if word not in ("nvidia", "geforce")) or "gpu"

    @property
    def arch(self) -> str:
        """What kernels are built for: the instructions of this GPU alone from Hopper on."""
        number = self.capability.replace(".", "")
        return f"{number}a" if int(number) >= 90 else number


STAND_IN = Gpu("no GPU", "no driver", "9.0")


def gpu() -> Gpu | None:
    """The first GPU that nvidia-smi shows."""
    found = query(_FIELDS)
    return Gpu(*found) if found and len(found) == len(_FIELDS.split(",")) else None


def query(fields: str) -> list[str]:
    """nvidia-smi's values of fields of the first GPU; empty where it does not answer."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [value.strip() for value in done.stdout.partition("\n")[0].split(",")]


def program(name: str) -> str | None:
    """The path of a program, looked for where the build looks for nvcc."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))
    toolkits = [os.path.join(home, "bin") for home in homes if home]
    folders = [*toolkits, os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    return shutil.which(name, path=os.pathsep.join(folders))
