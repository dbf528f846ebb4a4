"""Measures the cost of ssa, and of the same work with Python's `ssl`, on the same kernel and in the same run."""
