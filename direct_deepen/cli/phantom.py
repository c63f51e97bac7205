"""Write synthetic brain volumes in fastMRI's HDF5 format.

Each multi-coil volume is another head: the MNI152 anatomy with random contrast, deformation, lesions, coils and noise.
They stand in for real data, and every result on them says so. A volume depends on its seed and its number alone, not on
how many are written.
"""

import argparse
from pathlib import Path

EXAMPLES = """\
example, with seeds of their own for training and validation:
  direct-deepen phantom data/train --volumes 20 --slices 8 --size 320 --coils 12 --seed 1
  direct-deepen phantom data/validation --volumes 4 --slices 8 --size 320 --coils 12 --seed 2

needs the extra: pip install 'direct-deepen[demo]'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add output and what :func:`~direct_deepen.data.phantom.write_phantoms` takes."""
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--volumes", type=int, required=True, metavar="N", help="number of volumes, one file each")
    parser.add_argument("--slices", type=int, required=True, metavar="S", help="neighbouring axial slices a volume")
    parser.add_argument("--size", type=int, default=320, metavar="PIXELS", help="rows and columns (default: 320)")
    parser.add_argument("--coils", type=int, default=12, metavar="C", help="receive coils (default: %(default)s)")
    parser.add_argument("--seed", type=int, required=True, metavar="K", help="seed of the set, 0 or above")
    parser.add_argument(
        "--noise-std",
        type=float,
        default=0.007,
        metavar="STD",
        help="standard deviation of the k-space noise per real component, in units of the volume's intensity scale "
        "(default: %(default)s)",
    )
    parser.add_argument("--prefix", default="phantom", help="first part of the file names (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Write the volumes."""
    from direct_deepen.data.phantom import write_phantoms

    write_phantoms(
        args.output,
        num_volumes=args.volumes,
        num_slices=args.slices,
        size=args.size,
        num_coils=args.coils,
        seed=args.seed,
        noise_std=args.noise_std,
        prefix=args.prefix,
    )
    print(f"wrote {args.volumes} volumes to {args.output}")
