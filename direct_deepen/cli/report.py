"""Gather training curves, tables and pictures of runs into one page.

The page is HTML and needs no network. Curves (loss, energy gap, curvature, PSNR on validation data) are those of
folders of `direct train`, all in the same figures; tables and pictures those of folders that `direct-deepen benchmark`
or `calibrate` wrote.
"""

import argparse
from pathlib import Path

from direct_deepen.cli.verbosity import stage
from direct_deepen.files import write_text

EXAMPLES = """\
example:
  direct-deepen report runs/demo/deepen runs/demo/varnet runs/demo --out report.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add runs and output."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a training or of results")
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")


def run(args: argparse.Namespace) -> None:
    """Write the page."""
    from direct_deepen.pages.report import build_report

    with stage("page"):
        write_text(args.out, build_report(args.runs))
    print(f"wrote {args.out}")
