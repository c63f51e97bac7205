"""What docstrings of this project mean where reStructuredText and napoleon read something else.

|x| is a magnitude, never a substitution; "Posterior mean: the average of all samples" over a
property is a sentence, never a type and what is of it.
"""

import re
from typing import Any

from sphinx.application import Sphinx

_LITERAL_OR_BAR = re.compile(r"(``.*?``)|\|")


def with_escaped_bars(line: str) -> str:
    """Escape the bars of a line that are not in a literal."""
    return _LITERAL_OR_BAR.sub(lambda found: found[1] or r"\|", line)


def escape_bars(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Escape the bars of a docstring, but for its displayed equations, where they are LaTeX's."""
    equation: int | None = None
    for number, line in enumerate(lines):
        text = line.lstrip()
        indentation = len(line) - len(text)
        if equation is not None and text and indentation <= equation:
            equation = None
        if text.startswith(".. math::"):
            equation = indentation
        if equation is None:
            lines[number] = with_escaped_bars(line)


def begin_with_a_sentence(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from looking for a type in the first line of properties and data.

    There is none in a backslash, and it and the end of its line are nothing to reStructuredText.
    """
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx, before napoleon."""
    for hook in (escape_bars, begin_with_a_sentence):
        app.connect("autodoc-process-docstring", hook, priority=400)
    return {"parallel_read_safe": True}
