"""Command line: gather what runs have left into one page."""

import argparse
from pathlib import Path

from direct_deepen.cli.verbosity import stage

_DESCRIPTION = """\
Gather runs into one HTML page that needs no network: training curves (loss, energy gap, curvature, PSNR on validation
data) of `direct train` folders, all in the same figures, and tables and pictures of folders that `direct-deepen score`,
`benchmark` or `calibrate` wrote."""

_EPILOG = """\
example:
  direct-deepen report runs/demo/deepen runs/demo/varnet runs/demo --out report.html"""


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    """Add the command ``report`` to the subparsers of ``direct-deepen``, with the options that all share."""
    parser = subparsers.add_parser(
        "report",
        help="gather training curves, tables and pictures of runs into one page",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a training or of results")
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the page that the parsed ``args`` name.

    Raises
    ------
    DeepenError
        If a folder is missing or holds nothing to report.
    """
    # Imported here so that the help of other commands does not wait for torch.
    from direct_deepen.pages.html_page import write_page
    from direct_deepen.pages.report import build_report

    with stage("page"):
        write_page(args.out, build_report(args.runs))
    print(f"wrote {args.out}")
