"""The command ``direct-deepen``."""

import argparse
import sys
from collections.abc import Sequence

from direct_deepen.cli.benchmark import BENCHMARK
from direct_deepen.cli.calibrate import CALIBRATE
from direct_deepen.cli.configure import CONFIGURE
from direct_deepen.cli.doctor import DOCTOR
from direct_deepen.cli.landscape import LANDSCAPE
from direct_deepen.cli.phantom import PHANTOM
from direct_deepen.cli.posterior import POSTERIOR
from direct_deepen.cli.report import REPORT
from direct_deepen.cli.verbosity import shared_options, stage, tell_command, told
from direct_deepen.errors import DeepenError

_EPILOG = """\
Training and prediction are DIRECT's own commands:
  direct train EXPERIMENT --cfg configs/deepen_2d4x.yaml --training-root DATA --validation-root DATA
  direct predict OUTPUT --cfg configs/deepen_2d4x.yaml --data-root DATA \\
      --checkpoint EXPERIMENT/deepen_2d4x/model_11999.pt
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="direct-deepen",
        description="DEEPEN for DIRECT: phantoms, configurations, comparisons, calibration, and views of all of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = shared_options()
    for command in (DOCTOR, PHANTOM, CONFIGURE, BENCHMARK, CALIBRATE, POSTERIOR, LANDSCAPE, REPORT):
        command.add_to(subparsers, shared)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after bad input, which is reported in one line."""
    parsed = build_parser().parse_args(arguments)
    try:
        with told(parsed.verbose), stage("all"):
            if parsed.verbose:
                tell_command(parsed)
            parsed.run(parsed)
    except (DeepenError, OSError) as error:
        print(f"direct-deepen: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
