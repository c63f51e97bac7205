"""Tell the mean of regions and how sure it is.

Of a posterior file with samples: the mean over every region of a mask, its standard deviation and its interval, slice
by slice and over the volume, and differences and ratios to one of the regions. A mask is a label map, every number
above zero a region: NIfTI as drawn on the images of `direct-deepen posterior --nifti`, an array of the rows and columns
of the file, or a PNG of grey.
"""

import argparse
from pathlib import Path

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require

EXAMPLES = """\
examples:
  direct-deepen region images/meas.posterior.h5 --mask regions.nii.gz --relative-to 1 --csv regions.csv
  direct-deepen region images/meas.posterior.h5 --rectangle 40 52 8 8 --slice 3"""

_FORMATS = {"std": ".3g"} | dict.fromkeys(
    [
        *("mean", "lower", "upper"),
        *(f"{name}{end}" for name in ("difference", "ratio") for end in ("", "_lower", "_upper")),
    ],
    ".5g",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add file, regions and output."""
    parser.add_argument("file", metavar="FILE", type=Path, help="<volume>.posterior.h5 with samples")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--mask", type=Path, metavar="ROI", help=".nii, .nii.gz, .npy, .npz or .png; of two axes: of every slice"
    )
    where.add_argument(
        "--rectangle", type=int, nargs=4, metavar=("ROW", "COLUMN", "HEIGHT", "WIDTH"),
        help="pixels; row and column of the first, from 0, as the page of `direct-deepen posterior --html` has them",
    )  # fmt: skip
    parser.add_argument("--slice", type=int, metavar="N", help="this slice alone, from 1 (default: all)")
    parser.add_argument("--level", type=float, default=0.9, help="of the intervals (default: %(default)s)")
    parser.add_argument(
        "--relative-to", type=int, metavar="LABEL", help="also differences and ratios to this region, sample by sample"
    )
    parser.add_argument("--csv", type=Path, metavar="CSV", help="write the table there too")


def run(args: argparse.Namespace) -> None:
    """Print the table of regions, and write it."""
    from direct_deepen.evaluation.tables import markdown_table, write_csv
    from direct_deepen.posterior.label_map import read_labels, rectangle
    from direct_deepen.posterior.placement import Grid
    from direct_deepen.posterior.posterior_file import misfit_text
    from direct_deepen.posterior.region_table import region_rows
    from direct_deepen.posterior.saved_samples import open_samples

    with open_samples(args.file) as samples:
        count = samples.shape[0]
        require(args.slice is None or 1 <= args.slice <= count, f"--slice is {args.slice}; allowed: 1 to {count}")
        numbers = list(range(count)) if args.slice is None else [args.slice - 1]
        with stage(f"reading {args.mask or 'rectangle'}"):
            if args.mask is None:
                labels = rectangle(args.rectangle, samples.shape)
            else:
                labels = read_labels(args.mask, Grid.of(args.file, samples.shape, samples.attributes))
        with stage("regions"):
            rows = region_rows(samples, labels, level=args.level, numbers=numbers, relative_to=args.relative_to)
        calibrated = bool(samples.attributes.get("calibrated", False))
        chains, units = samples.num_chains, str(samples.attributes.get("units", "")).rpartition(": ")[2]
    print(f"{args.file}: {100 * args.level:g} % intervals, of {chains} chains; in units {units or 'of the file'}")
    print(markdown_table(rows, _FORMATS), end="")
    if not calibrated:
        print("Not calibrated: intervals of regions may hold much less than they say (direct-deepen calibrate).")
    if doubts := misfit_text(args.file):
        print(doubts)
    if args.csv is not None:
        write_csv(args.csv, rows)
        print(f"wrote {args.csv}")
