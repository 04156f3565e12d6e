"""Fail when the tests that were skipped are not the committed list (.ci/skipped.txt)."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def skipped_tests(report: str) -> set[str]:
    cases = ElementTree.parse(report).iter("testcase")
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("skipped") is not None
    }


def main() -> int:
    listed = pathlib.Path(__file__).with_name("skipped.txt").read_text().splitlines()
    expected = {line for line in listed if line and not line.startswith("#")}
    found = skipped_tests(sys.argv[1])
    for name in sorted(found - expected):
        print(f"skipped, but not in .ci/skipped.txt: {name}")
    for name in sorted(expected - found):
        print(f"in .ci/skipped.txt, but not skipped: {name}")
    return int(found != expected)


if __name__ == "__main__":
    sys.exit(main())
