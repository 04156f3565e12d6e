"""The command `lowbit`: info, support, explain, check; bench, compare and plot are in bench/."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import torch

from lowbit import __version__, native, registry
from lowbit.bench import (
    arguments,
    bench_command,
    compare_command,
    cuda_model,
    info,
    plot_command,
    report,
    sweep,
)
from lowbit.bench.arguments import Parser, UsageError
from lowbit.bench.cases import BACKWARD, LINEAR, Case
from lowbit.bench.weight_specs import WeightSpec
from lowbit.errors import dtype_name
from lowbit.formats.numerics import MODES, default_mode
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.tables import TABLE_NAMES
from lowbit.formats.weight_format import LAYOUTS, SCALE_DTYPES, ZERO_KINDS
from lowbit.ops.weight_only_linear import fastest_layout

_SCALES = {dtype_name(dtype): dtype for dtype in SCALE_DTYPES}
_EXAMPLES = """\
examples:
  lowbit info                              what is installed, and which backends run here
  lowbit support                           the table of what each kernel covers
  lowbit explain weight_only_linear --m 1 --n 4096 --k 4096 --table nf4
  lowbit check weight_only_linear --backend cpu
  lowbit bench --quick -o json --out results/quick.json
  lowbit compare results/before.json results/quick.json
  lowbit plot results/quick.json -o results/pictures

lowbit COMMAND --help lists the options of a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command: 0, 1 (a check or a bar failed), 2 (wrong arguments) or 130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    args.argv = argv
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return arguments.INTERRUPTED
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
    for add in (_add_info, _add_support, _add_explain, _add_check):
        add(commands)
    for module in (bench_command, compare_command, plot_command):
        module.add(commands)
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
    command.add_argument("op", type=arguments.op_name(), metavar="OP", help=_op_names())
    command.add_argument("--m", type=arguments.integer(0), help="rows of x, default 1")
    command.add_argument("--n", type=arguments.integer(0), default=4096, help="rows of the weight")
    command.add_argument("--k", type=arguments.integer(1), default=4096, help="columns of both")
    command.add_argument("--bits", type=arguments.integer(1, 8), default=4)
    command.add_argument("--mode", choices=MODES, help="default: that of the call")
    arguments.add_format(command)
    command.add_argument(
        "--zeros", choices=ZERO_KINDS, help="zero kind, default: what quantize_weight gives"
    )
    command.add_argument("--scales", choices=_SCALES, default="float16", help="dtype of scales")
    command.add_argument("--table", choices=TABLE_NAMES, default="", help="element table, 4 bits")
    command.add_argument(
        "--layout", choices=LAYOUTS, help="default: the one that a module holds on the device"
    )
    command.set_defaults(run=_run_explain)


def _run_explain(args) -> int:
    if args.table and args.bits != 4:
        raise UsageError(f"--table must go with --bits 4, got --bits {args.bits}")
    arguments.require_axis(args.op, "rows", "--m", args.m)
    arguments.require_axis(args.op, "mode", "--mode", args.mode)
    has_layout = args.op in (LINEAR, BACKWARD)
    if args.layout and not has_layout:
        raise UsageError(f"--layout must go with {LINEAR} or {BACKWARD}, got {args.op}")
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
    rows = 1 if args.m is None else args.m
    mode = args.mode or default_mode(args.device, args.dtype)
    problem = op.problem(*Case(args.op, spec, (rows,), args.dtype, mode).make())
    # The tensors are on the CPU; rows are matched with the device that was asked for.
    device = torch.device(args.device)
    problem = problem._replace(device=device)
    if has_layout:
        layout = args.layout or fastest_layout(device, dataclasses.replace(spec, n=1).make(0))
        problem = problem._replace(layout=layout)
    print(op.choose(problem))
    return 0


def _usual_zeros(bits: int, table: str) -> str:
    """The zero kind that quantize_weight gives weights of such an element."""
    return quantize_weight(torch.ones(1, 1), bits=bits, element=table or "uint").zero_kind


def _add_check(commands) -> None:
    command = commands.add_parser("check", help="every backend against the float64 oracle")
    command.add_argument(
        "op", nargs="*", type=arguments.op_name(), metavar="OP", help=f"default: {_op_names()}"
    )
    arguments.add_list(command, "--backend", list(registry.BACKENDS))
    arguments.add_list(command, "--isa", list(native.ISAS))
    command.add_argument("--seed", type=arguments.integer(0), default=0)
    command.add_argument("--case", metavar="TEXT", help="only cases whose name contains this")
    command.add_argument(
        "--cuda-model",
        type=Path,
        metavar="FILE",
        help="only the CUDA kernels as built for the host model (docs/verification.md)",
    )
    command.set_defaults(run=_run_check)


def _run_check(args) -> int:
    """1 if a case failed, and if nothing of what was asked for by name could run."""
    start = time.monotonic()
    if args.cuda_model:
        _use_cuda_model(args)
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


def _use_cuda_model(args) -> None:
    """Narrows the check to the kernels of the library."""
    if args.backend:
        raise UsageError("--cuda-model must stand without --backend: it checks one backend")
    try:
        model = cuda_model.load(args.cuda_model.resolve())
    except (OSError, AttributeError) as error:  # no library; a library without the model's controls
        raise UsageError(f"--cuda-model must be a library of the host model, {error}") from error
    model.set_seed(args.seed)
    args.backend = [cuda_model.NAME]
    args.op = args.op or [name for name, op in registry.OPS.items() if cuda_model.covers(op)]


def _op_names() -> str:
    return ", ".join(registry.OPS)
