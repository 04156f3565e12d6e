"""What nvcc makes of the CUDA kernels, read from the binaries; no GPU is needed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TORCH = Path(torch.__file__).parent
ARCHS = ("80", "89", "90a", "100a", "120a")

# Facts that no build may exceed, by kernel. 48 registers let five blocks of 256 threads share a
# multiprocessor: enough loads in flight to keep the memory busy.
MAX_REGISTERS = {"dequantize_weight_kernel": 48}
INSTANCES = {"dequantize_weight_kernel": 24}


def find_nvcc() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    found = [Path(home, "bin/nvcc") for home in homes if home]
    return next((str(nvcc) for nvcc in found if nvcc.is_file()), shutil.which("nvcc"))


def find_cuobjdump() -> str | None:
    """From the toolkit, else from the Triton wheel, which brings its own."""
    beside = Path(find_nvcc() or ".").with_name("cuobjdump")
    triton = importlib.util.find_spec("triton")
    folders = triton.submodule_search_locations if triton else []
    found = [beside, *(Path(folder, "backends/nvidia/bin/cuobjdump") for folder in folders)]
    return next((str(tool) for tool in found if tool.is_file()), shutil.which("cuobjdump"))


@dataclass(frozen=True)
class Binary:
    """A cubin and what ptxas said about its kernels."""

    path: Path
    log: str

    def resources(self) -> dict[str, dict[str, int]]:
        """registers, stack, stores and loads of spills, by mangled kernel name."""
        pattern = (
            r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, "
            r"(\d+) bytes spill loads\n.*?Used (\d+) registers"
        )
        names = ("stack", "spill_stores", "spill_loads", "registers")
        return {
            match[0]: dict(zip(names, map(int, match[1:]), strict=True))
            for match in re.findall(pattern, self.log)
        }

    def opcodes(self) -> dict[str, Counter]:
        """Number of each instruction, with its modifiers, by mangled kernel name."""
        tool = find_cuobjdump()
        if tool is None:
            pytest.skip("cuobjdump found neither in the CUDA toolkit nor in a Triton wheel")
        listing = subprocess.run(
            [tool, "-sass", self.path], capture_output=True, text=True, check=True
        ).stdout
        instruction = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
        parts = re.split(r"Function : (\S+)", listing)[1:]
        return {
            name: Counter(instruction.findall(text))
            for name, text in zip(parts[::2], parts[1::2], strict=True)
        }


@pytest.fixture(scope="module", params=[
    pytest.param(arch, marks=[] if arch == ARCHS[0] else pytest.mark.slow) for arch in ARCHS
])  # fmt: skip
def binary(request, tmp_path_factory) -> Binary:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    cubin = tmp_path_factory.mktemp("cubin") / "dequantize_weight.cubin"
    command = [nvcc, "-cubin", f"-arch=sm_{request.param}", "-O3", "-std=c++20", "-DUSE_CUDA"]
    command += [
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        "--resource-usage",
        "-I",
        ROOT / "csrc",
    ]
    command += ["-isystem", TORCH / "include", ROOT / "csrc/cuda/dequantize_weight.cu"]
    done = subprocess.run([*command, "-o", cubin], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Binary(cubin, done.stdout + done.stderr)


def limit_of(kernel: str, limits: dict[str, int]) -> int:
    return next(limit for name, limit in limits.items() if name in kernel)


def test_registers_and_spills(binary):
    resources = binary.resources()
    for name, count in INSTANCES.items():
        assert sum(name in kernel for kernel in resources) == count
    for kernel, used in resources.items():
        assert used["registers"] <= limit_of(kernel, MAX_REGISTERS), (kernel, used)
        assert not used["stack"] + used["spill_stores"] + used["spill_loads"], (kernel, used)


def test_instructions(binary):
    """16-byte stores, no local memory, no fused multiply-add of fp32, no division."""
    opcodes = binary.opcodes()
    assert len(opcodes) == sum(INSTANCES.values())
    for kernel, counts in opcodes.items():
        plain = Counter()
        for opcode, count in counts.items():
            plain[opcode.split(".")[0]] += count
        assert any(o.startswith("STG") and ".128" in o for o in counts), (kernel, counts)
        assert not plain["STL"] + plain["LDL"], (kernel, counts)
        assert not plain["FFMA"] + plain["FFMA2"], (kernel, counts)
        assert not plain["MUFU"], (kernel, counts)  # the reciprocal that a division starts with


# The CUDA recipe alone: the CPU library has tests of its own and takes longer to compile.
BUILD_CUDA_ONLY = """
import _build_config, _native_build as build
recipe = build.cuda_recipe(_build_config.choose_nvcc())
extension = next(e for e in build.native_extensions() if e.name == "lowbit._ops_cuda")
edges = build.library_edges(build.Path("_ops_cuda.so"), recipe, extension.sources)
build.Path("build.ninja").write_text(build.NINJA_RULES + edges)
build.run_ninja(build.Path("build.ninja"))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """_ops_cuda.so as setup.py builds it on a machine without a GPU, in a copy of the tree."""
    if find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    tree = tmp_path_factory.mktemp("tree")
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tree)
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    environment = {**os.environ, "LOWBIT_CUDA": "1", "LOWBIT_CUDA_ARCHS": "80"}
    command = [sys.executable, "-c", BUILD_CUDA_ONLY]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "_ops_cuda.so"


def output(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# The shims of torch, and the C and C++ libraries: theirs carry a version, unless libtorch exports
# the same names of namespace std and is found first.
STABLE = re.compile(r".*@|aoti_torch_|torch_|_Z(N[KRO]*|T[VIS])?St")


def test_library_needs_only_stable_symbols(library):
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", library))
    assert "libtorch.so" in needed
    assert not [name for name in needed if "cuda" in name or "c10" in name]
    undefined = re.findall(r"^\s*U (\S+)$", output("nm", "-D", library), re.MULTILINE)
    assert any(name.startswith("aoti_torch_") for name in undefined)
    assert [name for name in undefined if not STABLE.match(name)] == []


def test_library_exports_nothing(library):
    assert output("nm", "-D", "--defined-only", library).strip() == ""
