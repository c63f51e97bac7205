"""Show a reconstructed volume and its uncertainty.

Of a posterior file: MAP, posterior mean, standard deviation, outer quantiles, and samples if they were saved. With the
data it was made from, also the reference of `direct-deepen benchmark` and the error, on the scale of the standard
deviation. Prints the numbers of every slice; writes one slice as PNG, the volume as a page that any browser shows
without a network, NIfTI images, or DICOM series. Where the file has samples, the page tells the mean of any rectangle.
"""

import argparse
from pathlib import Path

import numpy as np

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require
from direct_deepen.posterior.dicom import write_dicom
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.posterior_file import REFERENCE, PosteriorVolume, read_posterior
from direct_deepen.progress import progress_bar

EXAMPLES = """\
example:
  direct-deepen posterior runs/demo/deepen_test/phantom_003_000.posterior.h5 --html posterior.html \\
      --cfg configs/demo_deepen_posterior.yaml --data-root runs/demo/data/test"""

_SAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add file, data and outputs."""
    parser.add_argument("file", metavar="FILE", type=Path, help="<volume>.posterior.h5, written by `direct predict`")
    parser.add_argument("--cfg", type=Path, help="configuration of the prediction; needs --data-root")
    parser.add_argument("--data-root", type=Path, help="folder of the fully sampled volume; needs --cfg")
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture of one slice")
    parser.add_argument("--slice", type=int, metavar="N", help="slice of the picture, from 1 (default: the middle one)")
    parser.add_argument("--html", type=Path, help="page with all slices")
    parser.add_argument(
        "--nifti",
        type=Path,
        metavar="NII",
        help="NAME.nii.gz: write NAME_map.nii.gz and so on, magnitudes with size and voxels of the header of the data "
        "where it has them, orientation unknown (needs the extra: pip install 'direct-deepen[nifti]')",
    )
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="FOLDER",
        help="write a DICOM series of the reconstruction (mean, or MAP where there is none) and one of the standard "
        "deviation, without a patient (needs the extra: pip install 'direct-deepen[dicom]')",
    )


def run(args: argparse.Namespace) -> None:
    """Show a posterior file."""
    from direct_deepen.pages.html_page import write_view
    from direct_deepen.pages.posterior_view import posterior_view
    from direct_deepen.pages.region_samples import read_region_samples

    compared = args.cfg is not None
    require(compared == (args.data_root is not None), "allowed: --cfg and --data-root together, or neither")
    with stage(f"reading {args.file}"):
        volume = read_posterior(args.file, num_samples=_SAMPLES)
    with stage("references"):
        kept = volume.arrays.get(REFERENCE)
        own = None if kept is None else np.abs(kept)
        references = _references(volume, args.cfg, args.data_root) if compared else own
    with stage("samples of the page"):
        regions = None if args.html is None else read_region_samples(args.file)
    view = posterior_view(volume, references, regions)
    count = len(view.labels)
    shown = (count + 1) // 2 if args.slice is None else args.slice
    require(1 <= shown <= count, f"--slice is {shown}; allowed: 1 to {count}")

    print(view.text())
    with stage("picture and page"):
        written = write_view(view, [shown - 1], args.out, args.html)
    if args.nifti is not None:
        with stage("NIfTI"):
            written += write_nifti(volume, args.nifti)
    if args.dicom is not None:
        with stage("DICOM"):
            write_dicom(volume, args.dicom)
        # Of files for every slice the folder.
        written.append(args.dicom)
    for path in written:
        print(f"wrote {path}")


def _references(volume: PosteriorVolume, configuration: Path, data_root: Path) -> np.ndarray:
    """Return the magnitudes of the fully sampled images in the units of the data, (slice, row, column).

    Of an empty slice it is zero, as what is in the file, where its scale is zero too.
    """
    from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset

    # Where `direct predict` keeps those that it has computed.
    kept = volume.path.parent / "coil_maps"
    of_volume = cases(
        inference_dataset(configuration, data_root),
        volume=volume.name,
        coil_maps=coil_maps_of(configuration),
        cache=kept if kept.is_dir() else None,
    )
    images, scales = {}, {}
    for case in progress_bar(of_volume, name="read", unit="slice"):
        scales[case.slice_number] = float(case.problem.scale)
        images[case.slice_number] = case.reference[0].abs().numpy() * scales[case.slice_number]
    expected = volume.arrays["scale"]
    numbers = volume.arrays.get("slice_number", np.arange(len(expected))).tolist()
    # It follows from the data alone, and differs by a few per cent from mask to mask.
    same = set(scales) <= set(numbers) and np.allclose([scales.get(n, 0) for n in numbers], expected, rtol=0.1, atol=0)
    told = list(scales.values())
    require(same, f"{volume.path}: intensity scales are {expected}; allowed with these data: {told}")
    nothing = np.zeros_like(next(iter(images.values())))
    return np.stack([images.get(number, nothing) for number in numbers])
