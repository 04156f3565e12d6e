"""python -m tests.mutation [--kernel NAME] [--record]: repeats, or makes, the table of kills."""

import argparse
import time


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        action="append",
        help="as in kernels.py; default: all",
    )
    parser.add_argument("--record", action="store_true", help="judge anew and write the table")
    arguments = parser.parse_args()
    # Imports torch, which takes longer than an answer about the arguments may.
    from tests.mutation import kills
    from tests.mutation.kernels import KERNELS

    names = arguments.kernel or list(KERNELS)
    if unknown := [name for name in names if name not in KERNELS]:
        parser.error(f"--kernel must be one of {', '.join(KERNELS)}, got {unknown[0]}")
    table = kills.load() if kills.TABLE.is_file() else {}
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {line}", flush=True)

    if arguments.record:
        kills.record(names, table, report)
        wrong = []
    else:
        wrong = kills.check([m.id for n in names for m in KERNELS[n].mutants()], table, report)
    table = kills.load()
    if arguments.kernel:
        table = kills.part(table, names)
    wrong += kills.disagreements(table, kills.every_mutant(names))
    print("\n".join(wrong) or "every mutant is killed or shown to be equivalent")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
