"""Command line: gather what runs have left into one page."""

import argparse
from pathlib import Path

from direct_deepen.cli.command import Command
from direct_deepen.cli.verbosity import stage

_DESCRIPTION = """\
Gather runs into one HTML page that needs no network: training curves (loss, energy gap, curvature, PSNR on validation
data) of `direct train` folders, all in the same figures, and tables and pictures of folders that `direct-deepen
benchmark` or `calibrate` wrote."""

_EPILOG = """\
example:
  direct-deepen report runs/demo/deepen runs/demo/varnet runs/demo --out report.html"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a training or of results")
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")


def run(args: argparse.Namespace) -> None:
    """Write the page that the parsed ``args`` name.

    Raises
    ------
    DeepenError
        If a folder is missing or holds nothing to report.
    """
    # Imported here so that the help of other commands does not wait for torch.
    from direct_deepen.files import write_text
    from direct_deepen.pages.report import build_report

    with stage("page"):
        write_text(args.out, build_report(args.runs))
    print(f"wrote {args.out}")


REPORT = Command(
    "report",
    "gather training curves, tables and pictures of runs into one page",
    _DESCRIPTION,
    _EPILOG,
    run,
    _add_arguments,
)
