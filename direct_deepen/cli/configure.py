"""Write a configuration with some values changed.

It is for `direct train` and `direct predict`, which take a file and nothing else. KEY is dotted from the top of the
file, VALUE is YAML. The key `transforms` stands for the transforms of training, validation and inference, which are to
be equal. Of changes to the same key the last one counts, and those on the command line after those of files.
"""

import argparse
from pathlib import Path

from direct_deepen.files import write_text

EXAMPLES = """\
example, another mask and more samples:
  direct-deepen configure configs/deepen_2d4x_posterior.yaml runs/deepen_2d6x.yaml \\
      transforms.masking.accelerations=[6.0] model.inference.num_samples=32

the same mask from a file:
  direct-deepen configure configs/deepen_2d4x.yaml runs/deepen_2d6x.yaml --with configs/masks/2d6x.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add input, output and changes."""
    parser.add_argument("source", metavar="IN", type=Path, help="configuration to start from")
    parser.add_argument("output", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="a value to change")
    parser.add_argument(
        "--with",
        dest="overlays",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="file with some keys of a configuration; may be given several times",
    )


def run(args: argparse.Namespace) -> None:
    """Write the configuration."""
    from direct_deepen.engines.configuration import changed_configuration, text_of

    content = changed_configuration(args.source, args.overlays, args.changes)
    changes = ", ".join(map(str, [*args.overlays, *args.changes]))
    write_text(args.output, text_of(content, f"{args.source} with {changes}" if changes else str(args.source)))
    print(f"wrote {args.output}")
