"""Other implementations of our ops, one adapter a file; timed beside ours by `lowbit bench`.

An adapter has NAME (as shown in the table), OPS (the names of our ops that it stands beside),
`unsupported(workload) -> reason or None` and `prepare(workload) -> lowbit.bench.entries.Entry`.
Conversions happen in `prepare`, before the clock runs, and the entry's `weight` is what the
converted operands stand for.
"""
