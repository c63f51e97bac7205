"""What docstrings of this project mean where reStructuredText and napoleon read something else.

|x| is a magnitude, never a substitution. "Posterior mean: the average of all samples" over a
property is a sentence, never a type and what is of it. What is returned is put in sentences too.
"""

import re
from itertools import pairwise
from typing import Any

from sphinx.application import Sphinx

_LITERAL_OR_BAR = re.compile(r"(``.*?``)|\|")


def with_escaped_bars(line: str) -> str:
    """Escape the bars of a line that are not in a literal."""
    return _LITERAL_OR_BAR.sub(lambda found: found[1] or r"\|", line)


def escape_bars(lines: list[str]) -> None:
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


def describe_returns_by_sentences(lines: list[str]) -> None:
    """Make the section on what is returned a field: to napoleon every line is another value."""
    headings = [number - 1 for number, line in enumerate(lines) if re.fullmatch("-+", line)]
    for heading, following in pairwise([*headings, len(lines)]):
        if lines[heading] == "Returns":
            first, *others = lines[heading + 2 : following]
            # Two empty lines end the section before.
            field = ["", "", f":returns: {first}", *(f"    {line}".rstrip() for line in others)]
            lines[heading:following] = [*field, ""]
            return


def describe_attributes_one_by_one(lines: list[str]) -> None:
    """Repeat what two attributes share: to napoleon ``a, b`` is one name."""
    for number in reversed(range(len(lines) - 1)):
        if re.fullmatch(r"\w+(, \w+)+", lines[number]) and lines[number + 1].startswith("    "):
            end = number + 1
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            names = lines[number].split(", ")
            lines[number:end] = [
                line for name in names for line in (name, *lines[number + 1 : end])
            ]


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads it."""
    escape_bars(lines)
    describe_attributes_one_by_one(lines)
    describe_returns_by_sentences(lines)
    if what in ("attribute", "data", "property"):
        # A first line without a colon has no type in it. To reStructuredText a backslash and the
        # end of its line are nothing.
        lines.insert(0, "\\")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx, before napoleon."""
    app.connect("autodoc-process-docstring", prepare, priority=400)
    return {"parallel_read_safe": True}
