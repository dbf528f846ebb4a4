"""Unmodified programs by each way to ssa, on each data path: `make test-programs` runs them (docs/programs.md)."""
