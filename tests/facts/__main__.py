"""python -m tests.facts: the tables of docs and a verdict; exit code 1 where a limit is broken.

For all architectures or those that are named. What has not changed comes from a cache.
"""

import argparse
import sys

from tests.facts.cubins import ARCHS, compile_all, kernel_sources, of_kernels
from tests.facts.limits import ENTRIES
from tests.facts.sass import kernel_facts, missing_tools
from tests.facts.table import Facts, facts_table, predictions_table
from tests.facts.verdict import all_failures


def facts_of_sources(sources: list[str], archs: list[str]) -> Facts:
    wanted = [(source, arch) for source in sources for arch in archs]
    cubins = compile_all(of_kernels(*each) for each in wanted)
    made = (cubin.result() for cubin in cubins)
    return {each: [*kernel_facts(cubin).values()] for each, cubin in zip(wanted, made, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.facts", description=__doc__)
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=ARCHS)
    archs = list(dict.fromkeys(parser.parse_args(arguments).arch))
    if missing := missing_tools():
        print(missing, file=sys.stderr)
        return 2
    facts = facts_of_sources(kernel_sources(), archs)
    print(f"{facts_table(facts)}\n\n{predictions_table(archs)}\n")
    broken = all_failures(facts, ENTRIES)
    print("\n\n".join(broken) or f"{len(facts)} binaries are within their limits")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
