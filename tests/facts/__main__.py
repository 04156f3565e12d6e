"""python -m tests.facts: the tables of docs, for all architectures or those that are named."""

import argparse

from tests.facts.cubins import ARCHS
from tests.facts.table import facts_table, predictions_table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.facts", description=__doc__)
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=ARCHS)
    archs = parser.parse_args().arch
    print(facts_table(archs))
    print()
    print(predictions_table(archs))


main()
