"""The compiled libraries use torch's stable ABI only: one build serves every torch from 2.11 on."""

import re
import shutil
import subprocess

import pytest

from lowbit import native

# What a Python-free library may need. libtorch.so brings the rest of torch with it.
ALLOWED = re.compile(
    r"(libtorch|libstdc\+\+|libgcc_s|libm|libc|libdl|librt|libpthread|ld-linux[\w-]*)\.so[.\d]*"
)
# Name of a namespace in a mangled C++ symbol: its length, then its letters.
UNSTABLE = re.compile(r"_Z\w*N[KVRO]*(2at|3c10|5torch)")


@pytest.fixture(params=native.LIBRARIES)
def library(request):
    path = native.FOLDER / f"{request.param}.so"
    if not path.is_file():
        pytest.skip(f"{path.name} is not part of this installation")
    return path


def output(tool: str, *arguments) -> str:
    if not shutil.which(tool):
        pytest.skip(f"{tool} (binutils) is not installed")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def test_unstable_names_are_recognised():
    assert UNSTABLE.search("_ZN2at5emptyEv")
    assert UNSTABLE.search("_ZNK3c104Half3fooEv")
    assert UNSTABLE.search("_ZN5torch8autogradE")
    assert not UNSTABLE.search("aoti_torch_get_data_ptr")
    assert not UNSTABLE.search("_ZNSt6vectorIfSaIfEE")


def test_no_unstable_symbol(library):
    symbols = output("nm", "-D", library).split()
    assert any(name.startswith("aoti_torch_") for name in symbols)  # nm read a real table
    assert [name for name in symbols if UNSTABLE.search(name)] == []


def test_nothing_is_exported(library):
    assert output("nm", "-D", "--defined-only", library).split("\n") == [""]


def test_needs_only_libtorch(library):
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", library))
    assert "libtorch.so" in needed
    assert [name for name in needed if not ALLOWED.fullmatch(name)] == []


def test_no_search_path_of_the_build_machine(library):
    assert not re.search(r"\((RPATH|RUNPATH)\)", output("readelf", "-d", library))
