"""Helpers of the tests of the engine and of scans serve here too; the extensions of the documentation are tested."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "engines"), str(TESTS / "scans"), str(TESTS.parent / "docs" / "extensions")]
