"""GPUs by their data sheets, and the least time that bytes and operations take on them."""

from dataclasses import dataclass

TERA = 1e12


@dataclass(frozen=True)
class Gpu:
    """Peaks, none of them measured. Rates are dense and accumulate in fp32, or in int32 for s8."""

    name: str
    arch: str
    multiprocessors: int
    clock: float  # Hz, boost
    bandwidth: float  # bytes a second
    rates: dict[str, float]  # operations a second, a multiply-add counts as two

    def rate(self, unit: str) -> float:
        """Of a data type, or `instructions`: of warps, one in each quarter at every clock."""
        if unit == "instructions":
            return 4 * self.multiprocessors * self.clock
        return self.rates[unit]


def _rates(f32: float, f16: float, s8: float, e4m3: float | None) -> dict[str, float]:
    rates = {"f32": f32, "f16": f16, "s8": s8, "e4m3": e4m3}
    return {unit: rate * TERA for unit, rate in rates.items() if rate is not None}


GPUS = (
    # NVIDIA A100 Tensor Core GPU data sheet (80 GB SXM) and architecture whitepaper.
    Gpu("A100", "80", 108, 1.410e9, 2.039 * TERA, _rates(19.5, 312, 624, None)),
    # NVIDIA L40S data sheet.
    Gpu("L40S", "89", 142, 2.520e9, 0.864 * TERA, _rates(91.6, 362.05, 733, 733)),
    # NVIDIA Ada GPU architecture whitepaper, appendix. Half rate with fp32 accumulators.
    Gpu("RTX 4090", "89", 128, 2.520e9, 1.008 * TERA, _rates(82.6, 165.2, 660.6, 330.3)),
    # NVIDIA H100 data sheet (SXM) and Hopper architecture whitepaper; the H200 has its chip.
    Gpu("H100", "90a", 132, 1.830e9, 3.350 * TERA, _rates(67, 989.4, 1978.9, 1978.9)),
    # NVIDIA H200 data sheet (SXM).
    Gpu("H200", "90a", 132, 1.830e9, 4.800 * TERA, _rates(67, 989.4, 1978.9, 1978.9)),
    # NVIDIA DGX B200 data sheet, an eighth of it; it names no clock, this one fits its rates.
    Gpu("B200", "100a", 148, 1.860e9, 8.000 * TERA, _rates(75, 2250, 4500, 4500)),
    # NVIDIA RTX Blackwell GPU architecture whitepaper, appendix. Half rate with fp32 accumulators.
    Gpu("RTX 5090", "120a", 170, 2.407e9, 1.792 * TERA, _rates(104.8, 209.5, 838, 419)),
)


@dataclass(frozen=True)
class Work:
    """What a kernel must at least do for one problem."""

    problem: str
    bytes: float
    operations: dict[str, float]  # by data type, or warp `instructions`


@dataclass(frozen=True)
class Prediction:
    microseconds: float
    bound: str  # "memory" or the unit that takes longest


def predict(work: Work, gpu: Gpu) -> Prediction | None:
    """The roofline; it knows no latency, launch or cache. None: the GPU lacks the data type."""
    try:
        times = {unit: amount / gpu.rate(unit) for unit, amount in work.operations.items()}
    except KeyError:
        return None
    times["memory"] = work.bytes / gpu.bandwidth
    bound = max(times, key=times.__getitem__)
    return Prediction(1e6 * times[bound], bound)
