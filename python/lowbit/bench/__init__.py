"""Cases, the one comparison, probes and timings; `lowbit check` and `lowbit bench` stand on it."""
