"""The Go programs of the tests: compiled where they are not, or not any more, into build/go.

They are built on this machine's own kernel, by `make go` or by the first test: the test kernel takes minutes for it.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "go"
LIBRARY = ROOT / "clients" / "go"
PROGRAMS = ROOT / "tests" / "native" / "go"


def environment(**more: str) -> dict[str, str]:
    """What `go` is called with: no network, a cache in build/, and the checkout may be anybody's."""
    return os.environ | {"GOCACHE": str(ROOT / "build" / "go-cache"), "GOFLAGS": "-buildvcs=false -mod=mod"} | more


def go(*arguments: str, cwd: Path = LIBRARY, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `go`, with what it says."""
    return subprocess.run(
        ["nice", "go", *arguments], cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False
    )


def is_fresh(made: Path, *directories: Path) -> bool:
    """Whether a program is younger than all sources."""
    sources = [path for directory in directories for path in (*directory.rglob("*.go"), *directory.glob("go.mod"))]
    return made.exists() and all(made.stat().st_mtime >= path.stat().st_mtime for path in sources)


def built(name: str) -> Path:
    """A program of tests/native/go: with the race detector in it where that runs, which it does not on each kernel."""
    racing, plain = _compiled(name, race=True), _compiled(name, race=False)
    return racing if _starts(racing) else plain


def static(name: str) -> Path:
    """A program of tests/native/go that is linked statically."""
    return _compiled(name, race=False)


def _compiled(name: str, *, race: bool) -> Path:
    made = BUILD / (f"{name}-race" if race else name)
    if not is_fresh(made, LIBRARY, PROGRAMS / name):
        BUILD.mkdir(parents=True, exist_ok=True)
        options = ["-race"] if race else []
        done = go(
            "build", *options, "-trimpath", "-o", str(made), f"./{name}", cwd=PROGRAMS, CGO_ENABLED=str(int(race))
        )
        assert done.returncode == 0, done.stderr
    return made


def _starts(program: Path) -> bool:
    """Whether the program ends at the end of its input, as each of tests/native/go does."""
    return subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    for directory in PROGRAMS.iterdir():
        if directory.is_dir():
            _compiled(directory.name, race=True)
            static(directory.name)
