"""Other implementations of our ops, one adapter a file; timed beside ours by `lowbit bench`.

An adapter has NAME (as shown in the table), OPS (the names of our ops that it stands beside),
`unsupported(workload) -> reason or None` and `prepare(workload) -> lowbit.bench.entries.Entry`.
Conversions happen in `prepare`, before the clock runs, and the entry's `weight` is what the
converted operands stand for. Files with a leading underscore are what adapters share.

A library is imported when one of its adapters is asked; its absence is a reason like any other.
Its threads are as many as torch's and rest once a call is over: a worker that spins on would take a
core from the entry that is timed next.
"""
