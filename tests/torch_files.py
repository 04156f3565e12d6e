"""What it takes to compile against torch, without the seconds that its import takes."""

import importlib.metadata
import importlib.util
from pathlib import Path

_FOLDER = Path(importlib.util.find_spec("torch").submodule_search_locations[0])

VERSION = importlib.metadata.version("torch")
INCLUDE = _FOLDER / "include"
LIBRARIES = _FOLDER / "lib"
TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"
