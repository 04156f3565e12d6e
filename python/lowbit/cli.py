"""The command `lowbit`: info, support, explain, check and bench."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

from lowbit import __version__, native, registry
from lowbit.bench import arguments, info, report, results, runner, sweep
from lowbit.bench.arguments import Parser, UsageError
from lowbit.bench.cases import LINEAR, Case
from lowbit.bench.entries import peers
from lowbit.bench.load import load_average
from lowbit.bench.weight_specs import WeightSpec
from lowbit.errors import dtype_name
from lowbit.formats.numerics import MODES
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.tables import TABLE_NAMES
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_KINDS

_SCALES = {dtype_name(dtype): dtype for dtype in SCALE_DTYPES}
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_EXAMPLES = """\
examples:
  lowbit info                              what is installed, and which backends run here
  lowbit support                           the table of what each kernel covers
  lowbit explain weight_only_linear --m 1 --n 4096 --k 4096 --table nf4
  lowbit check weight_only_linear --backend cpu
  lowbit bench --quick -o json --out results/quick.json

lowbit COMMAND --help lists the options of a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command: 0, 1 (a check failed), 2 (wrong arguments) or 130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    args.argv = argv
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except UsageError as error:
        print(f"lowbit {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # lowbit support | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> Parser:
    top = Parser(
        prog="lowbit",
        description="Low-bit kernels for PyTorch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"lowbit {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_info, _add_support, _add_explain, _add_check, _add_bench):
        add(commands)
    return top


def _add_info(commands) -> None:
    command = commands.add_parser("info", help="versions, machine, and each backend, or why not")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_run_info)


def _run_info(args) -> int:
    facts = info.info()
    print(json.dumps(facts, indent=1, default=str) if args.json else "\n".join(info.lines(facts)))
    return 0


def _add_support(commands) -> None:
    command = commands.add_parser("support", help="what each kernel covers, as Markdown")
    command.set_defaults(run=_run_support)


def _run_support(args) -> int:
    print(report.support_table())
    return 0


def _add_explain(commands) -> None:
    command = commands.add_parser("explain", help="which backend a call runs on, and why")
    command.add_argument("op", type=_op(), metavar="OP", help=_op_names())
    command.add_argument("--m", type=arguments.integer(0), help="rows of x, default 1")
    command.add_argument("--n", type=arguments.integer(0), default=4096, help="rows of the weight")
    command.add_argument("--k", type=arguments.integer(1), default=4096, help="columns of both")
    _add_format(command)
    command.add_argument(
        "--zeros", choices=ZERO_KINDS, help="zero kind, default: what quantize_weight gives"
    )
    command.add_argument("--scales", choices=_SCALES, default="float16", help="dtype of scales")
    command.add_argument("--table", choices=TABLE_NAMES, default="", help="element table, 4 bits")
    command.set_defaults(run=_run_explain)


def _run_explain(args) -> int:
    if args.table and args.bits != 4:
        raise UsageError(f"--table must go with --bits 4, got --bits {args.bits}")
    arguments.require_axis(args.op, "rows", "--m", args.m)
    arguments.require_axis(args.op, "mode", "--mode", args.mode)
    spec = WeightSpec(
        n=args.n,
        k=args.k,
        bits=args.bits,
        block_k=max(0, args.group_size),
        zeros=args.zeros or _usual_zeros(args.bits, args.table),
        scales=_SCALES[args.scales],
        table=args.table,
    )
    op = registry.OPS[args.op]
    rows, mode = 1 if args.m is None else args.m, args.mode or MODES[0]
    problem = op.problem(*Case(args.op, spec, (rows,), args.dtype, mode).make())
    # The tensors are on the CPU; rows are matched with the device that was asked for.
    print(op.choose(problem._replace(device=torch.device(args.device))))
    return 0


def _usual_zeros(bits: int, table: str) -> str:
    """The zero kind that quantize_weight gives weights of such an element."""
    return quantize_weight(torch.ones(1, 1), bits=bits, element=table or "uint").zero_kind


def _add_check(commands) -> None:
    command = commands.add_parser("check", help="every backend against the float64 oracle")
    command.add_argument("op", nargs="*", type=_op(), metavar="OP", help=f"default: {_op_names()}")
    _add_list(command, "--backend", list(registry.BACKENDS))
    _add_list(command, "--isa", list(native.ISAS))
    command.add_argument("--seed", type=arguments.integer(0), default=0)
    command.add_argument("--case", metavar="TEXT", help="only cases whose name contains this")
    command.set_defaults(run=_run_check)


def _run_check(args) -> int:
    """1 if a case failed, and if nothing of what was asked for by name could run."""
    start = time.monotonic()
    ops = args.op or list(registry.OPS)
    if not any(sweep.cases_of(op, args.case) for op in ops):
        raise UsageError(f"--case must be part of the name of a case, got {args.case!r}")
    tallies = list(sweep.tallies(ops, args.backend, args.isa or native.ISAS))
    done = []
    try:
        for tally in tallies:
            tally.run(sweep.cases_of(tally.op, args.case), args.seed)
            done.append(tally)
    finally:
        report.show(sweep.COLUMNS, [tally.cells() for tally in done])
    failures = [failure for tally in done for failure in tally.failures]
    if failures:
        print("", *failures, sep="\n")
    print("", sweep.summary(done, time.monotonic() - start), sep="\n")
    return 1 if failures or not any(tally.passed for tally in done) else 0


def _add_bench(commands) -> None:
    command = commands.add_parser("bench", help="checked, then timed beside peers")
    command.add_argument(
        "op", nargs="?", type=_op(), metavar="OP", default=LINEAR, help=_op_names()
    )
    command.add_argument("--quick", action="store_true", help="two cases in about ten seconds")
    command.add_argument(
        "--shapes", type=arguments.shapes, help='cross product, "M=1,16;N=4096;K=4096"'
    )
    _add_format(command)
    command.add_argument("--symmetric", action="store_true", help="no stored zero points")
    _add_list(command, "--backends", [*registry.BACKENDS, *peers()])
    command.add_argument("--threads", type=arguments.integers, default=(), help="such as 1,2")
    command.add_argument("--min-time", type=arguments.seconds, help="seconds a backend and case")
    command.add_argument(
        "-o",
        "--output",
        choices=results.FORMATS,
        default="md",
        help="md: a table (the default); csv: plain numbers, shares as fractions, and load, "
        "machine, versions and repro as columns of every line; json: all that and each sample",
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="write there, at once when all is done"
    )
    command.set_defaults(run=_run_bench)


def _run_bench(args) -> int:
    """Reports what was timed, also when interrupted; 1 if a result was wrong."""
    plan = _plan(args)
    if args.out:
        arguments.prepare_file(args.out)
    rows, interrupted, load = [], False, load_average()
    try:
        for row in runner.run(plan):
            rows.append(row)
            if sys.stderr.isatty():
                print(f"{row.case}: {row.backend}", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    _tell(args, results.Run(rows, args.device, args.argv, (load, load_average())))
    return _INTERRUPTED if interrupted else int(any(row.failed for row in rows))


def _plan(args) -> runner.Plan:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device must be one that torch sees, got cuda; try --device cpu")
    arguments.require_axis(args.op, "mode", "--mode", args.mode)
    if args.shapes and "M" in args.shapes:
        arguments.require_axis(args.op, "rows", "--shapes M", ",".join(map(str, args.shapes["M"])))
    rows, layers = runner.ROWS, runner.LAYERS
    if args.quick:
        rows, layers = runner.QUICK_ROWS, runner.QUICK_LAYERS
    if args.shapes:
        layers = tuple((n, k) for n in args.shapes["N"] for k in args.shapes["K"])
        rows = args.shapes.get("M", rows)
    return runner.Plan(
        op=args.op,
        layers=layers,
        rows=rows,
        bits=args.bits,
        group_size=args.group_size,
        dtype=args.dtype,
        mode=args.mode or MODES[0],
        symmetric=args.symmetric,
        backends=args.backends,
        threads=args.threads,
        min_time=args.min_time or (0.1 if args.quick else 0.5),
        device=args.device,
        quick=args.quick,
    )


def _tell(args, run: results.Run) -> None:
    if args.out:
        results.write(args.out, results.FORMATS[args.output](run))
    elif args.output == "md":
        print(results.heading(run), end="\n\n")
        report.show(results.COLUMNS, map(results.cells, run.rows))
        print(f"\nrepro: {run.repro}")
    else:
        sys.stdout.write(results.FORMATS[args.output](run))


def _add_format(command) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--bits", type=arguments.integer(1, 8), default=4)
    command.add_argument("--group-size", type=arguments.group_size, default=128, help="-1: a row")
    command.add_argument(
        "--dtype", type=arguments.dtype, default=torch.float32, help=", ".join(arguments.DTYPES)
    )
    command.add_argument("--mode", choices=MODES, help="numeric mode, default exact")
    command.add_argument("--device", choices=("cpu", "cuda"), default=device)


def _add_list(command, flag: str, names: list[str]) -> None:
    text = "some of " + ", ".join(names)
    command.add_argument(flag, type=arguments.list_of(names), default=(), metavar="LIST", help=text)


def _op():
    return arguments.one_of(list(registry.OPS))


def _op_names() -> str:
    return ", ".join(registry.OPS)
