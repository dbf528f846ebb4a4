"""The file system at /ssa: what is in it (`tree`), what it shows (`view`, `render`), FUSE (`operations`, `mount`)."""
