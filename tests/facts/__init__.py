"""Facts about compiled kernels, read from cubins on any machine, and the limits they must keep."""
