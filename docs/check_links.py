"""Every relative link in the Markdown files of the project leads to a file (and heading) that exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names that headings of a Markdown text can be linked by."""
    headings = re.findall(r"^#+\s+(.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(root: Path) -> list[str]:
    """One line for every link under `root` that leads nowhere."""
    found = []
    for page in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/**/*.md")]):
        for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
            target = match.group(1) or match.group(2)
            if re.match(r"[a-z]+:", target):
                continue
            name, _, heading = target.partition("#")
            file = (page.parent / name) if name else page
            if not file.exists():
                found.append(f"{page.relative_to(root)}: no file '{name}'")
            elif heading and file.suffix == ".md" and heading not in anchors(file.read_text(encoding="utf-8")):
                found.append(f"{page.relative_to(root)}: no heading '{heading}' in '{file.name}'")
    return found


if __name__ == "__main__":
    lines = broken(Path(__file__).resolve().parent.parent)
    print("\n".join(lines) or "every link leads somewhere")
    sys.exit(bool(lines))
