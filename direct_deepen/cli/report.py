"""Gather training curves, tables and pictures of runs into one page.

The page is HTML and needs no network. Curves (loss, energy gap, curvature, PSNR on validation data) are those of
folders of `direct train`, all in the same figures; tables and pictures those of folders that `direct-deepen benchmark`
or `calibrate` wrote.
"""

import argparse
from pathlib import Path

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require
from direct_deepen.files import require_apart, write_text

EXAMPLES = """\
example:
  direct-deepen report runs/demo/deepen runs/demo/varnet runs/demo --out report.html
  direct-deepen report runs/demo/deepen --out report.html --csv curves.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add runs and output."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a training or of results")
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")
    parser.add_argument("--csv", type=Path, metavar="CSV", help="also write all that was logged of the trainings")


def run(args: argparse.Namespace) -> None:
    """Write the page, and the curves as a table."""
    from direct_deepen.pages.report import build_report, curves_of, sources
    from direct_deepen.pages.training_curves import curves_table

    # What is written there would be on the next page.
    require_apart([args.out, *([args.csv.parent] if args.csv is not None else [])], [*args.runs, *sources(args.runs)])
    with stage("page"):
        written = {args.out: build_report(args.runs)}
        if args.csv is not None:
            trainings = curves_of(args.runs)
            require(bool(trainings), "--csv: none of the folders is one of a training")
            written[args.csv] = curves_table(trainings)
        for path, text in written.items():
            write_text(path, text)
            print(f"wrote {path}")
