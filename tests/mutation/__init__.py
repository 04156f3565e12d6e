"""Mutants of kernel texts: each small mistake that a kernel could have must be noticed."""
