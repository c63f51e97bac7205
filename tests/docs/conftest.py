"""The helpers of the tests of the engine serve here too, and the extensions of the documentation are tested."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "engines"), str(TESTS.parent / "docs" / "extensions")]
