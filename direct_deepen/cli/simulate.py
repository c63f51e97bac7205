"""Simulate fully sampled volumes from a folder of images.

Magnitude images of any source (NIfTI, DICOM, .npy, .npz, PNG) become k-space in fastMRI's HDF5 format, to train on:
pixel size, contrast, phase, coils and noise are drawn. OUT gets the folders training, validation and test, split by
subject.
"""

import argparse
from pathlib import Path

EXAMPLES = r"""
examples, of a data set in BIDS (the subject is the `sub-…` of the path), and of one that names patients otherwise:
  direct-deepen simulate openneuro runs/simulated --size 160 --pixel-size 0.5 1.8 --whole-object --seed 1
  direct-deepen simulate IXI runs/simulated --size 256 --seed 1 --subject 'IXI\d+'

NIfTI and DICOM need the extra: pip install 'direct-deepen[images]'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add input, output and what :func:`~direct_deepen.data.simulation.write_simulated` takes."""
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of images, and of folders of them")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--seed", type=int, required=True, metavar="K", help="seed of the set, 0 or above")
    parser.add_argument("--slices", type=int, default=4, metavar="S", help="slices a volume (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="rows and columns (default: the field of view of each image)"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="how often the slices are drawn from (default: %(default)s)"
    )
    for option, kind, default, what in (
        ("--coils", int, (4, 32), "fewest and most receive coils"),
        ("--pixel-size", float, (0.5, 1.3), "smallest and largest pixels in mm"),
        (
            "--noise-std",
            float,
            (0.002, 0.02),
            "least and most noise per real component, in units of the intensity scale",
        ),
    ):
        parser.add_argument(
            option, type=kind, nargs=2, default=default, metavar=("LEAST", "MOST"),
            help=f"{what} (default: {default[0]} {default[1]})",
        )  # fmt: skip
    parser.add_argument(
        "--whole-object",
        action="store_true",
        help="pixels so large that the object fits --size, as far as --pixel-size lets them (default: a part of it may "
        "be cut off)",
    )
    parser.add_argument(
        "--keep-band",
        action="store_true",
        help="keep k-space to its edge, also where it drops as that of an interpolated image (default: cut it there)",
    )
    parser.add_argument(
        "--subject",
        default=r"sub-[A-Za-z0-9]+",
        metavar="REGEX",
        help="what in a path names the subject (default: %(default)s; where that is not there, the first folder or the "
        "file)",
    )
    for part in ("validation", "test"):
        parser.add_argument(
            f"--{part}-subjects", nargs="+", metavar="NAME", help=f"subjects of {part} alone (default: a tenth, drawn)"
        )


def run(args: argparse.Namespace) -> None:
    """Write the volumes."""
    from direct_deepen.data.simulation import Acquisition, write_simulated

    named = {part: getattr(args, f"{part}_subjects") for part in ("validation", "test")}
    written = write_simulated(
        args.images,
        args.output,
        seed=args.seed,
        acquisition=Acquisition(
            num_slices=args.slices,
            size=args.size,
            num_coils=tuple(args.coils),
            pixel_size=tuple(args.pixel_size),
            noise_std=tuple(args.noise_std),
            whole_object=args.whole_object,
            keep_band=args.keep_band,
        ),
        repeats=args.repeats,
        subject=args.subject,
        held_out={part: names or [] for part, names in named.items()} if any(named.values()) else None,
    )
    for part, paths in written.items():
        print(f"wrote {len(paths)} volumes to {args.output / part}")
