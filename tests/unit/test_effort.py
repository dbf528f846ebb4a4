"""How the lines about TLS are counted (docs/examples.md)."""

import subprocess

import pytest

from tests import effort

PLAIN = "/* a program */\nint main(void) {\n    int fd = socket(A, B, 0);\n\n    return read(fd);\n}\n"


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (PLAIN, 0),
        (PLAIN.replace("/* a program */", "/* another */"), 0),
        (PLAIN.replace("0)", "TLS)"), 1),
        (PLAIN.replace("    return", "        return"), 0),
        ("#include <ssa.h>\n" + PLAIN, 1),
        (PLAIN.replace("read(fd)", "read(fd) /* a word */"), 1),
        ("int main(void) {\n}\n", 0),
    ],
)
def test_lines(other, lines):
    assert effort.added(PLAIN, other) == lines


@pytest.mark.parametrize("example", effort.TABLE, ids=lambda example: f"{example.name}-{example.language}")
def test_as_diff_counts(example):
    """diff(1), which finds a smallest set of changes with --minimal, counts the same lines."""
    plain, *others = ("\n".join(effort.code((effort.EXAMPLES / path).read_text())) + "\n" for path in example[2:5])
    for other, count in zip(others, effort.counts(example)[1:], strict=True):
        command = ["bash", "-c", 'diff --minimal <(printf %s "$0") <(printf %s "$1") | grep -c "^>"', plain, other]
        assert int(subprocess.run(command, capture_output=True, text=True, check=False).stdout) == count


def test_the_programs_on_ssa_have_no_more_lines_than_the_paper_said():
    changed = {example.name: effort.counts(example)[1] for example in effort.TABLE if example.language == "C"}
    assert max(changed.values()) <= max(row.changed for row in effort.PAPER)
