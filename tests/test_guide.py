"""docs/verification.md: its kernel is complete, and its commands run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import torch_files
from tests.build_cache import CSRC, EXAMPLES, ROOT
from tests.facts.cubins import FLAGS, Compilation, find_nvcc
from tests.facts.gpus import Work
from tests.facts.limits import Entry
from tests.facts.sass import kernel_facts, missing_tools
from tests.facts.verdict import failures
from tests.host_sim import builder, compiler
from tests.host_sim.runner import run
from tests.mutation.kernels import _EXAMPLES
from tests.mutation.programs import Program

GUIDE = (ROOT / "docs" / "verification.md").read_text()
OP = "reverse_runs"

pytestmark = pytest.mark.skipif(
    compiler.find_compiler() is None, reason="no C++ compiler is installed"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def tree(tmp_path) -> Path:
    """The files of the kernel, where their first lines say, beside those of the examples."""
    shutil.copytree(EXAMPLES, tmp_path / "examples" / "cuda")
    shutil.copytree(builder.HERE, tmp_path / "tests" / "host_sim")
    (tmp_path / "csrc").symlink_to(CSRC)
    for block in blocks("cpp"):
        if named := re.match(r"// (\S+)\n", block):
            (tmp_path / named[1]).write_text(block)
    return tmp_path


def program(tree: Path, flavour: str) -> Path:
    source = tree / "tests" / "host_sim" / f"check_{OP}.cpp"
    include = [CSRC, tree / "examples" / "cuda"]
    return compiler.compile_sources(f"check_{OP}", [source], include, compiler.FLAVOURS[flavour])


@pytest.mark.parametrize("flavour", compiler.FLAVOURS)
def test_the_kernel_passes(tree, flavour):
    done = run(program(tree, flavour), 1, 20)
    assert (done.returncode, done.stdout) == (0, "20 seeds ok\n"), done.stdout + done.stderr


# text, what it becomes, the build that must notice, its words
MISTAKES = (
    ("count - 1 - i", "kRun - 1 - i", "plain", "wrong value"),
    ("if (i < count) run[i]", "run[i]", "asan", "heap-buffer-overflow"),
    ("  sync_block();", "  ", "tsan", "data race"),
)


@pytest.mark.parametrize(("text", "changed", "flavour", "words"), MISTAKES)
def test_a_mistake_in_the_kernel_is_noticed(tree, text, changed, flavour, words):
    kernel = tree / "examples" / "cuda" / f"{OP}.cuh"
    original = kernel.read_text()
    assert original.count(text) == 1
    kernel.write_text(original.replace(text, changed))
    done = run(program(tree, flavour), 1, 20)
    assert done.returncode != 0 and words in done.stdout + done.stderr


@pytest.mark.slow
def test_the_kernel_as_an_op(tree):
    """Registered alone, by its lines in the place of those of the examples."""
    file = tree / "examples" / "cuda" / "registration.cpp"
    text = file.read_text()
    [lines] = [block for block in blocks("cpp") if block.startswith(f"void {OP}(")]
    for line in lines.splitlines():
        kind = re.match(r"\s*(void|m\.\w+)", line)[0]
        others = [other for other in text.splitlines() if other.startswith(kind)]
        text = text.replace("\n".join(others), line)
    file.write_text(text.replace("lowbit_examples_model", "lowbit_guide_model"))
    for source in file.parent.glob("*.cu"):
        if source.stem != OP:
            source.unlink()
    torch.ops.load_library(builder.build_examples(file.parent))
    x = torch.randn(600)
    y = torch.empty(600)
    torch.ops.lowbit_guide_model.reverse_runs(x, y)
    assert torch.equal(y, torch.cat([part.flip(0) for part in x.split(256)]))
    with pytest.raises(ValueError, match=r"reverse_runs: y must have shape \[600\], got \[599\]"):
        torch.ops.lowbit_guide_model.reverse_runs(x, y[1:])


def written(within: str, kind: str, **names) -> object:
    """What the guide adds to a tuple, "()", or a dictionary, "{}", as one of its own."""
    [block] = [block for block in blocks("python") if f"{kind}(" in block]
    return eval(within[0] + block + within[1], names)


@pytest.mark.slow
def test_the_kernel_keeps_its_limits(tree):
    if missing := missing_tools():
        pytest.skip(missing)
    (entry,) = written("()", "Entry", Entry=Entry, Work=Work)
    compilation = Compilation(
        tree / entry.source, "80", (CSRC,), (torch_files.INCLUDE,), (*FLAGS, torch_files.TARGET)
    )
    assert failures("80", kernel_facts(compilation.made()).values(), [entry]) == []


def test_the_kernel_is_judged_by_its_check(tree):
    judge = written("{}", "Program", Program=Program, _EXAMPLES=_EXAMPLES)["reverse_runs"]
    assert all((tree / file).is_file() for file in (judge.check, *judge.texts))
    assert set(judge.seeds) == set(compiler.FLAVOURS)


@pytest.mark.slow
@pytest.mark.every_time
@pytest.mark.parametrize("command", blocks("sh"))
def test_commands(command, tree):
    if "tests.facts" in command and (find_nvcc() is None or missing_tools()):
        pytest.skip("nvcc or cuobjdump is not installed")
    command = command.replace(".venv/bin/python", sys.executable)
    folder = tree if OP in command else ROOT
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
