"""Fail when the tests that were skipped are not those that .ci/skipped.txt has for this CPU.

A line is `FLAG: PATTERN`: where /proc/cpuinfo lacks the flag, and nowhere else, some of these
tests are skipped.
"""

import fnmatch
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

LISTED = pathlib.Path(__file__).with_name("skipped.txt")
CPU = pathlib.Path("/proc/cpuinfo")


def skipped_tests(report: str) -> set[str]:
    cases = ElementTree.parse(report).iter("testcase")
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("skipped") is not None
    }


def expected_patterns(flags: set[str]) -> list[str]:
    lines = [line for line in LISTED.read_text().splitlines() if line and line[0] != "#"]
    parts = [line.split(": ", 1) for line in lines]
    # Brackets are those of parameters.
    return [pattern.replace("[", "[[]") for flag, pattern in parts if flag not in flags]


def main() -> int:
    patterns = expected_patterns(set(CPU.read_text().split()))
    found = skipped_tests(sys.argv[1])
    unlisted = [name for name in found if not any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    unused = [p for p in patterns if not fnmatch.filter(found, p)]
    for name in sorted(unlisted):
        print(f"skipped, but not in .ci/skipped.txt for this CPU: {name}")
    for pattern in unused:
        print(f"in .ci/skipped.txt for this CPU, but nothing of it was skipped: {pattern}")
    return int(bool(unlisted or unused))


if __name__ == "__main__":
    sys.exit(main())
