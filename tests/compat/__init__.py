"""The table of libraries that is run: `make test-compat` runs their smallest programs and writes docs/compatibility.md.

libraries.toml     the libraries: each one's program, the server that it meets, and what is expected
programs/          their smallest programs, as their documentation has them; nothing in them is of ssa
requirements*.txt  the versions that are installed, in an environment of their own under build/compat
servers.py         Debian's servers; standins.py: for those that Debian does not have
run.py             runs the programs; results/: what came of it
page.py, page.md   render the results as docs/compatibility.md
"""
