"""What the commands that make a page's tables and pictures share."""

import argparse
from pathlib import Path


def folders_of(description: str | None) -> tuple[Path, Path]:
    """Return what a report reads and what it writes to, the two arguments of its command; the second is made."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="what `run` has written")
    parser.add_argument("results", type=Path, help="folder of the page's tables and pictures")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    return arguments.output, arguments.results
