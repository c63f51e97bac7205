"""Reconstruct a scanner's file: image and uncertainty, without a configuration.

Reads fastMRI's HDF5, ISMRMRD (MRD), BART's .cfl with .hdr, .npy, .npz and .mat by their content; finds sampled
positions, calibration region, oversampling, noise, coil maps and scale, and says in a table what it found and chose.
Writes, to a folder, the posterior file, NIfTI images, DICOM series if asked for, a picture, and a page that any browser
shows without a network.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require, require_count

if TYPE_CHECKING:
    import numpy as np

    from direct_deepen.scans.preparation import PreparedScan
    from direct_deepen.scans.trajectories import PreparedTrajectory

EXAMPLES = """\
examples:
  direct-deepen reconstruct meas.h5 --out images
  direct-deepen reconstruct kspace.npy --axes row,column,coil --samples 0 --out images"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add input, output and what may be chosen in place of what is found."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="file of k-space; of BART's pair either, or neither")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder to write to; made if missing")
    parser.add_argument(
        "--axes", help="axes of an array, as slice,coil,row,column (default: ([slice,]coil,row,column) of NumPy, "
        "(row,column[,coil[,slice]]) of MATLAB)",
    )  # fmt: skip
    parser.add_argument(
        "--trajectory", type=Path, metavar="FILE",
        help="of samples that are on no grid: .npy of positions in cycles a pixel, (sample, …, 2), or complex",
    )  # fmt: skip
    parser.add_argument("--matrix", type=int, metavar="N", help="rows and columns of images of such samples")
    parser.add_argument("--slice", type=int, nargs="+", metavar="N", help="these slices alone, from 1 (default: all)")
    parser.add_argument(
        "--samples", type=int, default=16, metavar="S", help="chains; 0 for MAP without uncertainty (default: 16)"
    )
    parser.add_argument("--steps", type=int, default=40, metavar="K", help="steps of a chain (default: 40)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="seed of chains and of masks (default: 0)")
    parser.add_argument("--weights", metavar="NAME", help="weights that come along (default: brain)")
    parser.add_argument(
        "--prior-weight", type=float, default=1.0, metavar="W", help="factor of the prior's cost (default: 1)"
    )
    parser.add_argument(
        "--noise", choices=("white", "corners"), help="noise of the coils: alike in all, or variances from the corners "
        "of k-space (default: the file's noise scan, where it has one; else alike)",
    )  # fmt: skip
    parser.add_argument(
        "--noise-std", type=float, metavar="ETA",
        help="noise per real component of a sample, in the unit of k-space (default: estimated)",
    )  # fmt: skip
    parser.add_argument(
        "--maps", type=Path, metavar="FILE", help="coil maps, .npy (coil, row, column) or BART's (default: ESPIRiT's)"
    )
    parser.add_argument(
        "--coils", type=int, default=16, metavar="C", help="coils after compression (default: %(default)s)"
    )
    parser.add_argument(
        "--accelerate",
        type=float,
        metavar="R",
        help="of full data leave one in R samples, and compare with all of them",
    )
    parser.add_argument(
        "--mask", choices=("lines", "2d", "radial"), default="lines",
        help="which, with --accelerate (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--save-samples", action="store_true", help="write the samples into the posterior file too")
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also DICOM series of the reconstruction and its standard deviation, in <name>_dicom of the folder (needs "
        "the extra: pip install 'direct-deepen[dicom]')",
    )
    parser.add_argument("--snr", action="store_true", help="images in units of the noise per real component")


def run(args: argparse.Namespace) -> None:
    """Reconstruct."""
    from direct_deepen.scans.arrays import read_positions, with_trajectory
    from direct_deepen.scans.preparation import Choices
    from direct_deepen.scans.reading import open_scan
    from direct_deepen.scans.reconstruction import Method, Run, look_at, pretrained_prior
    from direct_deepen.scans.undersampling import Undersampling

    method = Method(
        num_samples=args.samples, num_steps=args.steps, seed=args.seed, prior_weight=args.prior_weight,
        save_samples=args.save_samples,
    )  # fmt: skip
    prior = pretrained_prior(args.weights)
    axes = None if args.axes is None else args.axes.replace(" ", "").split(",")
    choices = Choices(
        noise=args.noise, noise_std=args.noise_std, sensitivity_map=None if args.maps is None else read_maps(args.maps),
        most_coils=args.coils, intensity_scale=prior.intensity_scale,
        undersampling=None if args.accelerate is None else Undersampling(args.accelerate, args.mask, args.seed),
    )  # fmt: skip
    with open_scan(args.input, axes) as scan:
        if args.trajectory is not None:
            scan = with_trajectory(scan, read_positions(args.trajectory))
        if args.matrix is not None:
            require(scan.trajectory is not None, f"--matrix is {args.matrix}; allowed with a trajectory")
            require_count("--matrix", args.matrix, least=8)
            scan = replace(scan, matrix=args.matrix)
        with stage(f"looking at {args.input}"):
            prepared = look_at(scan, choices)
        numbers = _numbers(prepared, args.slice)
        print(_heading(prepared))
        with stage("reconstruction"):
            path = Run(prepared, prior, method, args.out, snr=args.snr).reconstruct(numbers)
    for written in [path, *_outputs(path, args.out, dicom=args.dicom)]:
        print(f"wrote {written}")


def read_maps(path: Path) -> "np.ndarray":
    """Read coil maps, complex (coil, row, column), or with slices before; a :class:`DeepenError` if it holds none."""
    import numpy as np

    from direct_deepen.scans.reading import open_scan

    with open_scan(path) as scan:
        return np.stack([np.asarray(scan.kspace[number]) for number in range(len(scan.kspace))])


def _numbers(prepared: "PreparedScan | PreparedTrajectory", asked: list[int] | None) -> list[int] | None:
    count = prepared.num_slices
    for number in asked or []:
        require(1 <= number <= count, f"--slice is {number}; allowed: 1 to {count}")
    return None if asked is None else sorted({number - 1 for number in asked})


def _heading(prepared: "PreparedScan | PreparedTrajectory") -> str:
    scan, size = prepared.scan, prepared.voxel_size
    voxels = "" if size is None else f", voxels of {'×'.join(f'{length:.3g}' for length in size)} mm"
    rows, columns = prepared.size
    lines = [f"{scan.path}: {scan.kind}, {prepared.num_slices} slices of {rows}×{columns}{voxels}"]
    return "\n".join([*lines, *(f"  {remark}" for remark in scan.remarks)])


def _outputs(path: Path, folder: Path, *, dicom: bool) -> list[Path]:
    import numpy as np
    import yaml  # type: ignore[import-untyped]

    from direct_deepen.pages.html_page import write_view
    from direct_deepen.pages.posterior_view import posterior_view
    from direct_deepen.pages.region_samples import read_region_samples
    from direct_deepen.pages.summary import summary
    from direct_deepen.posterior.dicom import write_dicom
    from direct_deepen.posterior.nifti import write_nifti
    from direct_deepen.posterior.posterior_file import REFERENCE, read_posterior

    volume = read_posterior(path)
    found = yaml.safe_load(str(volume.attributes["configuration"]))
    for name, text in {**found, "prior": volume.attributes["prior"]}.items():
        print(f"  {name:<20} {text}")
    if told := summary(volume):
        print(told)
    stem = folder / volume.path.name.removesuffix(".posterior.h5")
    reference = volume.arrays.get(REFERENCE)
    with stage("picture and page"):
        regions = read_region_samples(path)
        view = posterior_view(volume, None if reference is None else np.abs(reference), regions)
        count = len(view.labels)
        written = write_view(
            view, [(count - 1) // 2], stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.html")
        )
    with stage("NIfTI"):
        written += write_nifti(volume, stem.with_name(f"{stem.name}.nii.gz"))
    if dicom:
        with stage("DICOM"):
            write_dicom(volume, stem.with_name(f"{stem.name}_dicom"))
        written.append(stem.with_name(f"{stem.name}_dicom"))
    return written
