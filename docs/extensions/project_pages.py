"""The pages of ``projects/*/README.md`` as pages of the documentation, in ``docs/projects``.

They are written anew with every build, with links that hold here: to pictures where they are, to
the other pages, and names in place of links to files that are no pages.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "projects"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def page(readme: Path) -> str:
    """Return the text of a project's README with links as seen from :data:`PAGES`."""

    def translated(link: re.Match[str]) -> str:
        mark, label, target = link.groups()
        if re.match(r"https?:|#", target):
            return link.group()
        path = (readme.parent / target).resolve()
        if mark:
            return f"![{label}]({os.path.relpath(path, PAGES)})"
        if path.name == "README.md" and path.parent.parent == ROOT / "projects":
            return f"[{label}]({path.parent.name}.md)"
        # A label that is no name of a file says something else: both are to be read.
        name = f"`{path.relative_to(ROOT)}`"
        return name if path.name == Path(label.strip("`")).name else f"{label} ({name})"

    return _LINK.sub(translated, readme.read_text(encoding="utf-8"))


def write_pages(app: Sphinx) -> None:
    """Write all pages; those of projects that are gone go too."""
    PAGES.mkdir(exist_ok=True)
    readmes = sorted((ROOT / "projects").glob("*/README.md"))
    for stale in {path.stem for path in PAGES.glob("*.md")} - {
        readme.parent.name for readme in readmes
    }:
        (PAGES / f"{stale}.md").unlink()
    for readme in readmes:
        path, text = PAGES / f"{readme.parent.name}.md", page(readme)
        # An unchanged file is not built again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
