"""The layer rules of docs/architecture.md, kept by reading the sources.

Every rule is a function from the root of a checkout to the violations it finds, and each is shown
to find one that is seeded into an otherwise empty tree.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CPP_SUFFIXES = ("h", "cpp", "cu")
CPP_ROOTS = ("csrc", "examples/cuda")
KERNEL_TEXTS = tuple(f"{root}/**/*.{suffix}" for root in CPP_ROOTS for suffix in ("inl", "cuh"))
CPP = (*KERNEL_TEXTS, *(f"{root}/**/*.{suffix}" for root in CPP_ROOTS for suffix in CPP_SUFFIXES))
PYTHON = "python/lowbit"


def files(root, patterns):
    return sorted({path for pattern in patterns for path in root.glob(pattern)})


def code_lines(path):
    """The lines of a C++ file without comments."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), path.read_text(), flags=re.S)
    return [re.sub(r"//.*", "", line) for line in text.splitlines()]


def hits(root, patterns, expression, allowed=()):
    found = []
    for path in files(root, patterns):
        name = path.relative_to(root).as_posix()
        if any(name == a or a.endswith("/") and name.startswith(a) for a in allowed):
            continue
        for number, line in enumerate(code_lines(path), 1):
            if re.search(expression, line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def torch_in_kernel_texts(root):
    return hits(root, KERNEL_TEXTS, r"#\s*include.*(torch|ATen|c10|\bPython\.h)|\btorch::|\bat::")


def torch_headers_outside_their_place(root):
    stable = r"#\s*include\s*[<\"](torch/|ATen|c10)"
    places = ("csrc/torch_checks.h", "csrc/registration_cpu.cpp", "csrc/registration_cuda.cpp")
    return hits(root, CPP, stable, places)


def headers_that_are_not_stable(root):
    return hits(
        root,
        CPP,
        r"#\s*include\s*[<\"](ATen|c10|torch/(?!csrc/stable/|headeronly/|csrc/inductor/aoti_torch/c/))",
    )


def simd_outside_simd_h(root):
    return hits(
        root, CPP, r"\b_mm\d*_|\b__m\d{3}|immintrin\.h", ("csrc/cpu/simd.h", "csrc/cpu/simd/")
    )


def gpu_instructions_outside_wrappers(root):
    words = r"\basm\b|__shfl|\bthreadIdx\b|__syncthreads|__syncwarp|\bbar\.sync"
    # simd/ has tiles, a dot product that GCC spills around, and loads that must not be done twice;
    # fiber.h the switch of stacks.
    places = ("csrc/cuda/ptx/", "csrc/cuda/conversions.cuh", "csrc/cuda/platform.cuh")
    places += ("csrc/cuda/model/fiber.h", "csrc/cpu/simd/")
    return hits(root, CPP, words, places)


def launches_outside_launch_cuh(root):
    return hits(root, CPP, r"<<<|cudaLaunch", ("csrc/cuda/launch.cuh",))


def imports_of(path, root):
    """(line number, dotted module) of every import, lazy ones included."""
    package = path.relative_to(root / "python").with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module in ("lowbit", "lowbit.formats", "lowbit.ops"):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


# What each floor may import of lowbit. A floor is the first part of the path below lowbit/.
BASE = {"environment", "errors", "native", "backends", "choice", "registry", "_version"}
FLOORS = {
    "environment": set(),
    "errors": set(),
    "_version": set(),
    "native": {"environment", "errors", "_C", "_version"},
    "backends": {"errors", "native"},
    "choice": {"backends"},
    "registry": {"environment", "errors", "native", "backends", "choice"},
    "formats": {"errors", "formats"},
    "ops": {"errors", "registry", "formats", "ops", "triton_kernels"},
}
FLOORS["nn"] = FLOORS["ops"] | BASE | {"nn"}
FLOORS["bench"] = FLOORS["ops"] | BASE | {"bench", "__version__"}
FLOORS["cli"] = FLOORS["bench"] | {"cli"}
FLOORS["__main__"] = {"cli"}


def imports_upwards(root):
    found = []
    for path in files(root, [f"{PYTHON}/**/*.py"]):
        parts = path.relative_to(root / PYTHON).with_suffix("").parts
        if parts == ("__init__",):
            continue
        allowed = FLOORS.get(parts[0])
        name = path.relative_to(root).as_posix()
        if allowed is None:
            found.append(f"{name}: {parts[0]} is not a floor of docs/architecture.md")
            continue
        for line, module in imports_of(path, root):
            head, _, rest = module.partition(".")
            if head == "lowbit" and rest.partition(".")[0] not in allowed:
                found.append(f"{name}:{line}: imports {module}")
    return found


def foreign_imports(root):
    """What lies below ops needs torch and the standard library only; triton_kernels triton too."""
    rules = {f"{PYTHON}/errors.py": {"torch"}, f"{PYTHON}/formats/*.py": {"torch"}}
    rules |= {f"{PYTHON}/ops/*.py": {"torch"}, f"{PYTHON}/environment.py": set()}
    found = []
    for pattern, allowed in rules.items():
        for path in files(root, [pattern]):
            for line, module in imports_of(path, root):
                head = module.partition(".")[0]
                if head not in allowed | {"lowbit"} | STANDARD:
                    found.append(f"{path.relative_to(root)}:{line}: imports {module}")
    for path in files(root, ["triton_kernels/*.py"]):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [] if node.level else [node.module]
            for name in names:
                if name.partition(".")[0] not in {"triton", "torch"} | STANDARD:
                    found.append(f"{path.relative_to(root)}:{node.lineno}: imports {name}")
    return found


STANDARD = sys.stdlib_module_names


def environment_elsewhere(root):
    found = []
    for path in files(root, [f"{PYTHON}/**/*.py", "triton_kernels/**/*.py"]):
        if path.name == "environment.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"os\.environ|getenv|from os import environ", line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    return found + hits(root, CPP, r"\bgetenv\s*\(")


def too_many_environment_variables(root):
    path = root / PYTHON / "environment.py"
    names = set(re.findall(r"LOWBIT_[A-Z_0-9]+", path.read_text())) if path.exists() else set()
    return sorted(names) if len(names) > 5 else []


def undocumented_environment_variables(root):
    path, page = root / PYTHON / "environment.py", root / "docs/architecture.md"
    text = page.read_text() if page.exists() else ""
    names = set(re.findall(r"LOWBIT_[A-Z_0-9]+", path.read_text())) if path.exists() else set()
    return sorted(name for name in names if f"`{name}`" not in text)


def imports_of_tests(root):
    expression = re.compile(r"^\s*(from|import)\s+(tests|conftest)\b")
    found = []
    for path in files(root, ["python/**/*.py", "triton_kernels/**/*.py", "*.py"]):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if expression.match(line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    return found


SEEDS = [
    (torch_in_kernel_texts, "csrc/cpu/op.inl", '#include "torch_checks.h"'),
    (torch_in_kernel_texts, "csrc/cuda/op.cuh", "void f(torch::stable::Tensor x);"),
    (torch_in_kernel_texts, "examples/cuda/op.cuh", '#include "torch_checks.h"'),
    (torch_headers_outside_their_place, "examples/cuda/op.cu", "#include <torch/headeronly/a.h>"),
    (headers_that_are_not_stable, "examples/cuda/op.cu", "#include <ATen/ATen.h>"),
    (torch_headers_outside_their_place, "csrc/cpu/op.cpp", "#include <torch/csrc/stable/tensor.h>"),
    (headers_that_are_not_stable, "csrc/torch_checks.h", "#include <ATen/ATen.h>"),
    (headers_that_are_not_stable, "csrc/torch_checks.h", "#include <torch/extension.h>"),
    (simd_outside_simd_h, "csrc/cpu/op.inl", "auto a = _mm512_setzero_ps();"),
    (simd_outside_simd_h, "csrc/cpu/op.cpp", "#include <immintrin.h>"),
    (gpu_instructions_outside_wrappers, "csrc/cuda/op.cuh", "int i = threadIdx.x;"),
    (gpu_instructions_outside_wrappers, "csrc/cuda/op.cuh", 'asm volatile("bar;");'),
    (gpu_instructions_outside_wrappers, "csrc/cuda/op.cuh", "__shfl_xor_sync(m, v, 1);"),
    (gpu_instructions_outside_wrappers, "examples/cuda/op.cuh", "int i = threadIdx.x;"),
    (gpu_instructions_outside_wrappers, "examples/cuda/op.cuh", 'asm volatile("bar;");'),
    (gpu_instructions_outside_wrappers, "examples/cuda/op.cu", "__syncthreads();"),
    (launches_outside_launch_cuh, "examples/cuda/op.cu", "kernel<<<1, 32>>>();"),
    (launches_outside_launch_cuh, "examples/cuda/op.cuh", "cudaLaunchKernelEx(&c, f);"),
    (simd_outside_simd_h, "examples/cuda/op.cuh", "#include <immintrin.h>"),
    (environment_elsewhere, "examples/cuda/op.cu", 'auto p = std::getenv("LOWBIT_ISA");'),
    (launches_outside_launch_cuh, "csrc/cuda/op.cu", "kernel<<<1, 32>>>();"),
    (launches_outside_launch_cuh, "csrc/cuda/op.cu", "cudaLaunchKernelEx(&c, f);"),
    (imports_upwards, "python/lowbit/formats/a.py", "from lowbit.ops import weight_only_linear"),
    (imports_upwards, "python/lowbit/formats/a.py", "def f():\n    from lowbit import registry"),
    (imports_upwards, "python/lowbit/formats/a.py", "from ..ops import dequantize_weight"),
    (imports_upwards, "python/lowbit/ops/a.py", "import lowbit.nn.linear"),
    (imports_upwards, "python/lowbit/registry.py", "from lowbit.formats import packing"),
    (imports_upwards, "python/lowbit/environment.py", "import lowbit.native"),
    (imports_upwards, "python/lowbit/nn/a.py", "from lowbit.bench import check"),
    (imports_upwards, "python/lowbit/bench/a.py", "from lowbit.nn import linear"),
    (imports_upwards, "python/lowbit/helpers.py", ""),
    (foreign_imports, "python/lowbit/formats/a.py", "import numpy as np"),
    (foreign_imports, "python/lowbit/ops/a.py", "import triton"),
    (foreign_imports, "triton_kernels/a.py", "from lowbit import registry"),
    (environment_elsewhere, "python/lowbit/native.py", "import os\nx = os.environ['A']"),
    (environment_elsewhere, "csrc/cpu/isa.cpp", 'auto p = std::getenv("LOWBIT_ISA");'),
    (too_many_environment_variables, "python/lowbit/environment.py",
     "\n".join(f"LOWBIT_{c} = 1" for c in "ABCDEF")),
    (undocumented_environment_variables, "python/lowbit/environment.py", "LOWBIT_A = 1"),
    (imports_of_tests, "python/lowbit/bench/a.py", "from tests import conftest"),
]  # fmt: skip
RULES = list(dict.fromkeys(rule for rule, _, _ in SEEDS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule):
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "path", "text"), SEEDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_violation_is_found(rule, path, text, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("")
    if path != "python/lowbit/helpers.py":
        assert rule(tmp_path) == []
    file.write_text(text + "\n")
    assert len(rule(tmp_path)) >= 1


def test_comments_are_no_code(tmp_path):
    file = tmp_path / "csrc/cuda/op.cu"
    file.parent.mkdir(parents=True)
    file.write_text("// kernel<<<1, 2>>>\n/* threadIdx\n threadIdx */ int x;\n")
    assert (
        launches_outside_launch_cuh(tmp_path) == gpu_instructions_outside_wrappers(tmp_path) == []
    )


def test_the_rules_read_this_tree():
    """An empty list of files would keep every rule."""
    assert files(ROOT, [f"{PYTHON}/formats/*.py"]) and files(ROOT, [f"{PYTHON}/ops/*.py"])
    for pattern in ("csrc/cpu/*.inl", "csrc/cuda/*.cuh", "examples/cuda/*.cuh"):
        read = files(ROOT, [pattern])
        assert read and set(read) <= set(files(ROOT, KERNEL_TEXTS))
    for pattern in ("csrc/*.h", "csrc/cpu/*.cpp", "csrc/cuda/*.cu", "examples/cuda/*"):
        read = files(ROOT, [pattern])
        assert read and set(read) <= set(files(ROOT, CPP))
