"""The command ``direct-deepen``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from direct_deepen.cli import (
    benchmark,
    calibrate,
    configure,
    doctor,
    landscape,
    phantom,
    posterior,
    reconstruct,
    region,
    report,
    simulate,
)
from direct_deepen.cli.verbosity import log_arguments, log_to_standard_error, stage
from direct_deepen.errors import DeepenError, require
from direct_deepen.files import require_apart

_EPILOG = """\
Training and prediction are DIRECT's own commands:
  direct train EXPERIMENT --cfg configs/deepen_2d4x.yaml --training-root DATA --validation-root DATA
  direct predict OUTPUT --cfg configs/deepen_2d4x.yaml --data-root DATA \\
      --checkpoint EXPERIMENT/deepen_2d4x/model_11999.pt
"""


_COMMANDS = (
    doctor, reconstruct, posterior, region, phantom, simulate, configure, benchmark, calibrate, landscape, report,
)  # fmt: skip

_OUTPUTS = ("output", "out", "html", "csv", "nifti", "dicom")
"""Arguments that name what is written; paths in all others are read."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="direct-deepen",
        description="DEEPEN for DIRECT: data, configurations, comparisons, calibration, and views of all of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (
        doctor,
        phantom,
        simulate,
        configure,
        benchmark,
        calibrate,
        reconstruct,
        posterior,
        region,
        landscape,
        report,
    ):
        text = str(module.__doc__)
        command = commands.add_parser(
            module.__name__.rpartition(".")[2],
            help=text.partition("\n")[0],
            description=text,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="also log to standard error what is read and used, and how long",
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def require_inputs_kept(parsed: argparse.Namespace) -> None:
    """Raise :class:`DeepenError` if a command is to write to a file or a folder that it reads, or one file twice."""
    outputs, inputs = list[Path](), list[Path]()
    for name, value in vars(parsed).items():
        paths = [Path(item) for item in (value if isinstance(value, list) else [value]) if isinstance(item, str | Path)]
        (outputs if name in _OUTPUTS else inputs).extend(paths)
    for number, path in enumerate(outputs):
        require(path.resolve() not in {other.resolve() for other in outputs[:number]}, f"{path} is given twice")
    data = [volume for path in inputs if path.is_dir() for volume in path.glob("*.h5")]
    require_apart(outputs, [*inputs, *data])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after bad input and 130 after Ctrl-C, which are reported in one line."""
    parsed = build_parser().parse_args(arguments)
    try:
        with log_to_standard_error(parsed.verbose), stage("all"):
            if parsed.verbose:
                log_arguments(parsed)
            require_inputs_kept(parsed)
            parsed.run(parsed)
    except (DeepenError, OSError) as error:
        print(f"direct-deepen: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("direct-deepen: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
