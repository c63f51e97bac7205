"""A terminal for progress bars to be written to."""

import io
import sys

import pytest


class Terminal(io.StringIO):
    """What is written to a terminal, as text."""

    def isatty(self) -> bool:
        """Return true: bars ask."""
        return True


def as_standard_error(patch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of standard error; in the test itself, as pytest takes it away after fixtures."""
    terminal = Terminal()
    patch.setattr(sys, "stderr", terminal)
    return terminal
