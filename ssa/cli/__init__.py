"""The `ssa` command: a file a verb, and `main` with the table of them."""
