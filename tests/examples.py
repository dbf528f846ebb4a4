"""The examples of the documentation, as programs: what is printed there is what is run."""

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def examples(document: str) -> dict[str, str]:
    """The Python blocks of a document, by the heading that they stand under, joined."""
    found: dict[str, str] = {}
    for section in re.split(r"^#+ ", (DOCS / document).read_text(), flags=re.MULTILINE):
        heading, _, text = section.partition("\n")
        blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[heading.strip("` ")] = "\n".join(blocks)
    return found


def at(source: str, port: int) -> str:
    """An example whose server is on a port of this machine."""
    source = re.sub(r'"example\.org", \d+', f'"localhost", {port}', source)
    return source.replace("//example.org", f"//localhost:{port}")
