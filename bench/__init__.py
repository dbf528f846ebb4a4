"""What ssa costs, beside the same work done with Python's `ssl` in the same kernel and the same run."""
