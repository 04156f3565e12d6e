"""PEP 517 backend: setuptools, with build requirements that depend on the target environment.

An isolated build cannot see the installed packages, and a plain requirement on torch would download
a second one (gigabytes). So torch is asked for only when the target environment has none to offer.
"""

import shutil
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from _build_config import find_torch, wants_native


def _native_requirements() -> list[str]:
    if not wants_native():
        return []
    torch = [] if find_torch() else ["torch>=2.11"]
    return ["ninja>=1.11", "pybind11>=2.13", *torch]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    # setuptools packs all it finds in build/lib, files of an earlier build included.
    for stale in Path("build").glob("lib*"):
        shutil.rmtree(stale)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def get_requires_for_build_wheel(config_settings=None):
    return build_meta.get_requires_for_build_wheel(config_settings) + _native_requirements()


def get_requires_for_build_editable(config_settings=None):
    return build_meta.get_requires_for_build_editable(config_settings) + _native_requirements()
