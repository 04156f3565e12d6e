"""What the documents say of the code is what the code says."""

import pathlib
import re

import pytest

import lowbit
from lowbit import environment
from lowbit.bench.report import support_table

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_support_table_of_the_readme():
    block = re.search(r"<!-- support -->\n(.*?)\n<!-- /support -->", README, re.DOTALL)
    assert block.group(1) == support_table().strip(), "paste the output of `lowbit support`"


def test_readme_is_short_and_has_its_commands():
    assert README.count("\n") < 150
    for name in ("run", "test"):
        assert re.search(rf"<!-- {name} -->\n```sh\n[^\n]+\n```", README)


def test_every_public_function_is_documented():
    for name in lowbit.__all__:
        if not name.startswith("__"):
            assert getattr(lowbit, name).__doc__, name


def test_environment_variables_are_in_the_table():
    source = pathlib.Path(environment.__file__).read_text()
    table = (ROOT / "docs" / "architecture.md").read_text()
    names = set(re.findall(r"LOWBIT_[A-Z_]+", source))
    assert names and all(f"`{name}`" in table for name in names)


@pytest.mark.slow
@pytest.mark.every_time
def test_example_of_the_readme_runs(capsys):
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "weight_only_linear(" in printed and "runs on:" in printed
