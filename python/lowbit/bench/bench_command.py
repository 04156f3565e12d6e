"""`lowbit bench`: its options, the plans they make, and what it prints."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from lowbit import registry
from lowbit.bench import arguments, bars, plan, report, results, runner
from lowbit.bench.arguments import INTERRUPTED, UsageError
from lowbit.bench.bars.evaluators import Facts, Outcome
from lowbit.bench.cases import AXES, LINEAR
from lowbit.bench.entries import peers
from lowbit.bench.load import cores, load_average, priority
from lowbit.bench.models import MODELS
from lowbit.bench.overhead import OVERHEAD
from lowbit.formats.numerics import MODES

_OUTPUT = (
    "md: a table (the default); csv: plain numbers, shares as fractions, and load, machine, "
    "versions and repro as columns of every line; json: all that, each sample and its probe"
)
# What the bars decide themselves.
_PLAN_OPTIONS = (
    *("quick", "shapes", "bits", "group_size", "dtype", "mode", "symmetric", "no_prepack"),
    *("backends", "threads", "min_time"),
)


def add(commands) -> None:
    """The command and its options."""
    command = commands.add_parser("bench", help="checked, then timed beside peers")
    names = ", ".join([*AXES, OVERHEAD])
    parse_op = arguments.one_of([*AXES, OVERHEAD])
    command.add_argument("op", nargs="?", type=parse_op, metavar="OP", default=LINEAR, help=names)
    command.add_argument(
        "--quick",
        action="store_true",
        help="two cases in about ten seconds, weights warm: a smoke test",
    )
    command.add_argument(
        "--shapes",
        type=arguments.shapes,
        help='cross product, "M=1,16;N=4096;K=4096"; "M=1,16" keeps the layers',
    )
    arguments.add_list(command, "--model", list(MODELS))
    command.add_argument("--bits", type=arguments.integers(1, 8), default=(4,), help="such as 2,4")
    arguments.add_list(command, "--mode", MODES)
    arguments.add_format(command)
    command.add_argument("--symmetric", action="store_true", help="no stored zero points")
    command.add_argument("--no-prepack", action="store_true", help="our weights in plain layout")
    arguments.add_list(command, "--backends", [*registry.BACKENDS, *peers()])
    command.add_argument("--threads", type=arguments.integers(1), default=(), help="such as 1,2")
    command.add_argument("--min-time", type=arguments.seconds, help="seconds a backend and case")
    command.add_argument(
        "--assert-bars",
        action="store_true",
        help=f"measure what the bars of the op need ({', '.join(bars.names())}), on their layers "
        "and those of --model, and leave with 1 if one is missed",
    )
    command.add_argument("-o", "--output", choices=results.FORMATS, default="md", help=_OUTPUT)
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="write there, at once when all is done"
    )
    command.set_defaults(run=_run, defaults={n: command.get_default(n) for n in _PLAN_OPTIONS})


def _run(args) -> int:
    """Reports what was timed, also when interrupted; 1 if a result was wrong or a bar missed."""
    plans = _plans_of_bars(args) if args.assert_bars else [_plan(args)]
    if args.out:
        arguments.prepare_file(args.out)
    rows, peaks, interrupted, load = [], {}, False, load_average()
    try:
        with priority():
            for row in runner.run(plans, peaks):
                rows.append(row)
                if sys.stderr.isatty():
                    print(f"{row.run} {row.case}: {row.backend} {row.mode}", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    judged = args.assert_bars and not interrupted
    facts = Facts(cores(), peaks)
    outcomes = bars.read(args.op).judge(rows, facts) if judged else []
    _tell(args, results.Run(rows, args.device, args.argv, (load, load_average()), peaks, outcomes))
    missed = any(outcome.passed is False for outcome in outcomes)
    return INTERRUPTED if interrupted else int(missed or any(row.failed for row in rows))


def _plan(args) -> plan.Plan:
    _require_device(args)
    for mode in args.mode:
        arguments.require_axis(args.op, "mode", "--mode", mode)
    shapes = args.shapes or {}
    if "M" in shapes:
        arguments.require_axis(args.op, "rows", "--shapes M", ",".join(map(str, shapes["M"])))
    if "N" in shapes and args.model:
        raise UsageError("--model must be left out where --shapes has N and K, got both")
    return plan.Plan(
        op=args.op,
        layers=_layers(args, shapes),
        rows=shapes.get("M", plan.QUICK_ROWS if args.quick else plan.ROWS),
        bits=args.bits,
        group_size=args.group_size,
        dtype=args.dtype,
        modes=args.mode,
        symmetric=args.symmetric,
        prepack=not args.no_prepack,
        backends=args.backends,
        threads=args.threads,
        min_time=args.min_time or (0.1 if args.quick else 0.5),
        device=args.device,
        quick=args.quick,
    )


def _layers(args, shapes: dict[str, tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    if "N" in shapes:
        return tuple((n, k) for n in shapes["N"] for k in shapes["K"])
    if args.model:
        return _layers_of_models(args)
    return plan.QUICK_LAYERS if args.quick else plan.LAYERS


def _layers_of_models(args) -> tuple[tuple[int, int], ...]:
    return tuple(dict.fromkeys(layer for model in args.model for layer in MODELS[model]))


def _plans_of_bars(args) -> list[plan.Plan]:
    _require_device(args)
    if args.op not in bars.names():
        need = f"go with an op that has bars ({', '.join(bars.names())})"
        raise UsageError(f"--assert-bars must {need}, got {args.op}")
    for name, default in args.defaults.items():
        if getattr(args, name) != default:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} must be left out with --assert-bars: the bars decide it")
    base = dataclasses.replace(plan.Plan(), device=args.device)
    return bars.read(args.op).plans(_layers_of_models(args), base)


def _require_device(args) -> None:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device must be one that torch sees, got cuda; try --device cpu")


def _tell(args, run: results.Run) -> None:
    """Rows into the file or onto stdout. The bars are told even where the rows go to a file."""
    if args.out:
        results.write(args.out, results.FORMATS[args.output](run))
    elif args.output == "md":
        print(results.heading(run), end="\n\n")
        report.show(results.COLUMNS, map(results.cells, run.rows))
        print(f"\nrepro: {run.repro}")
    else:
        sys.stdout.write(results.FORMATS[args.output](run))
    if run.outcomes:
        _tell_outcomes(run.outcomes, sys.stdout if args.out or args.output == "md" else sys.stderr)


def _tell_outcomes(outcomes: list[Outcome], stream) -> None:
    print(file=stream)
    print(report.markdown(bars.COLUMNS, [outcome.cells() for outcome in outcomes]), file=stream)
    counts = {v: sum(o.verdict == v for o in outcomes) for v in ("pass", "FAIL", "n/a")}
    summary = f"{counts['pass']} of {len(outcomes)} bars passed, {counts['FAIL']} missed"
    print(f"\n{summary}, {counts['n/a']} not applicable here", file=stream)
