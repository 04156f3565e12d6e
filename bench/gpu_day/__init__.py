"""The steps of bench/gpu_day.sh: what a GPU can tell of this package, in one go.

steps.py has them as data, runner.py runs them, and each program that a step needs and that the
package does not have is a module beside them.
"""
