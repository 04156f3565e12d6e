"""python -m tests.conformance: --device compares a GPU with the model, --record writes anew."""

import argparse
import sys

from tests.conformance import golden, outputs
from tests.conformance.build import model_program
from tests.conformance.device import check_device, device_arch, is_wrong


def compare_device() -> int:
    arch = device_arch()
    if arch is None:
        print("no GPU: nvidia-smi does not name one", file=sys.stderr)
        return 2
    verdicts = check_device(arch)
    width = max(map(len, verdicts))
    for name, verdict in verdicts.items():
        print(f"{name:{width}}  {verdict}")
    wrong = sum(map(is_wrong, verdicts.values()))
    print(f"sm_{arch}: {len(verdicts)} cases, {wrong} wrong")
    return int(wrong > 0)


def record() -> int:
    result = outputs.run(model_program())
    if result.failed:
        print("\n".join(f"{name}: {error}" for name, error in result.failed.items()))
        return 1
    outputs.RECORD.write_text(outputs.record(result.outputs))
    golden.RECORD.write_text(golden.current())
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--device", action="store_true", help="exit code 1 on any difference")
    action.add_argument("--record", action="store_true", help="golden.txt and expected.txt")
    arguments = parser.parse_args()
    return compare_device() if arguments.device else record()


if __name__ == "__main__":
    sys.exit(main())
