"""What lies here is outside the package, as the code of a user is; the tiny data are those of the engines' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
