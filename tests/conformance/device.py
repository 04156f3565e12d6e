"""The first minute of a GPU: every case on it against the host model."""

from bench.gpu_day import machine
from tests.conformance.build import device_program, model_program
from tests.conformance.outputs import Output, Run, changes, run


def device_arch() -> str | None:
    """Of the first GPU ("80", "90a", ...); None where there is none."""
    gpu = machine.gpu()
    return gpu.arch if gpu else None


def _verdict(name: str, expected: Output, device: Run) -> str:
    if name in device.skipped:
        return "skipped: the device lacks its instructions"
    if name in device.failed:
        return f"FAILED: {device.failed[name]}"
    got = device.outputs[name].words
    wrong = expected.differences(got)
    if len(wrong) == 0:
        return "same" if expected.tolerance == 0 else f"within {expected.tolerance:.2g}"
    at = wrong[0]
    view = "<f4" if expected.type == "float" else "<u4"
    ours, theirs = expected.words.view(view)[at], got.view(view)[at]
    return f"DIFFERS in {len(wrong)} of {len(got)} words; word {at} must be {ours}, got {theirs}"


def compare(expected: Run, device: Run) -> dict[str, str]:
    """A verdict on each case; those on wrong ones have capitals."""
    return {name: _verdict(name, output, device) for name, output in expected.outputs.items()}


def is_wrong(verdict: str) -> bool:
    return verdict.startswith(("FAILED", "DIFFERS"))


def check_device(arch: str) -> dict[str, str]:
    """Builds and runs both programs.

    Raises RuntimeError if the model itself no longer gives what was recorded.
    """
    expected = run(model_program())
    if changed := changes(expected):
        raise RuntimeError("the host model differs from expected.txt:\n" + "\n".join(changed))
    return compare(expected, run(device_program(arch)))
