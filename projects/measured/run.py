"""Reconstruct measured slices, undersampled by several masks: what weights are worth where nothing was simulated.

    python -m projects.measured.run SLICES runs/measured --system deepen configs/pretrained_2d4x_posterior.yaml
    python -m projects.measured.report runs/measured projects/measured/results

SLICES is a folder of fully sampled k-space that nothing was trained on: `.npy` files, complex (coil, row, column) with
DC at n//2, or volumes in fastMRI's format, of which the middle slice is taken. Coil maps are ESPIRiT's, from the 24×24
centre. The classical methods have that of 17 values of λ which is best *by the reference of the very slice*, which no
user has; systems have nothing tuned, and the noise level of each slice is estimated from its data. `--system NAME
CONFIGURATION [CHECKPOINT]` adds one; without a checkpoint it has the weights that come with the package.

Writes OUTPUT/<slice>/<mask>/<method>.csv, and .h5 with the images; what is there is not computed again.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from direct.common.subsample import build_masking_function
from torch import nn

from direct_deepen import SenseOperator, align_phase, intensity_scale
from direct_deepen.data.cases import Case, intensity_scale_of
from direct_deepen.data.fastmri_file import open_volume
from direct_deepen.engines.reconstruction import misfit_arrays, reconstruct
from direct_deepen.engines.trained import load_prior, load_system, pretrained_for
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.classical import CLASSICAL, REGULARIZATIONS, ZERO_FILLED
from direct_deepen.evaluation.methods import classical
from direct_deepen.evaluation.metrics import posterior_quality, quality
from direct_deepen.evaluation.pictures import write_images
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.inference import Inference
from direct_deepen.inference.estimators import Map
from direct_deepen.machine import available_cores
from direct_deepen.physics import estimated_noise_std
from direct_deepen.physics.espirit import LARGEST_CALIBRATION, espirit_maps
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import FIELD_OF_VIEW
from direct_deepen.posterior.misfit import LIMITS
from direct_deepen.progress import progress_bar

MASKS = Path("configs/masks")
COLUMNS = ("psnr", "ssim", "nmse", "tuned", "noise_std", "std", "error", "coverage_90", "flagged")

# ---- Data


def read_slices(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and k-space, complex64 (coil, row, column) divided by its largest value, of every file of a folder."""
    paths = sorted(path for ending in ("*.npy", "*.h5") for path in folder.glob(ending))
    require(len(paths) > 0, f"{folder}: no .npy and no .h5 file; allowed: slices of k-space")
    for path in paths:
        if path.suffix == ".npy":
            kspace = np.load(path, allow_pickle=False)
        else:
            with open_volume(path) as volume:
                kspace = volume["kspace"][len(volume["kspace"]) // 2]
        require(
            kspace.ndim == 3 and np.iscomplexobj(kspace),
            f"{path}: shape {kspace.shape} and dtype {kspace.dtype}; allowed: complex (coil, row, column)",
        )
        yield path.stem, torch.from_numpy(kspace.astype(np.complex64) / np.abs(kspace).max())


def draw_masks(height: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    """Return the masks of `configs/masks` by name, boolean (height, width)."""
    masks = {}
    for path in sorted(MASKS.glob("*.yaml")):
        draw = build_masking_function(**yaml.safe_load(path.read_text(encoding="utf-8"))["transforms"]["masking"])
        masks[path.stem] = draw(shape=(1, height, width, 2), seed=seed).squeeze().expand(height, width) != 0
    return masks


def masks_of_file(path: Path, height: int, width: int) -> dict[str, torch.Tensor]:
    """Return the masks of an `.npz` file, the middle of each, that are at least as large as the slice."""
    masks = {}
    with np.load(path, allow_pickle=False) as content:
        for name, mask in content.items():
            top, left = mask.shape[0] // 2 - height // 2, mask.shape[1] // 2 - width // 2
            if top >= 0 and left >= 0:
                masks[name] = torch.from_numpy(mask[top : top + height, left : left + width] != 0)
    return masks


def case_of(name: str, kspace: torch.Tensor, maps: torch.Tensor, mask: torch.Tensor, kind: str) -> Case:
    """Return the problem and the reference of a slice, scaled by a ``kind`` of intensity scale."""
    masked = (kspace * mask)[None]
    A = align_phase(SenseOperator(maps[None], mask[None, None]), masked)
    scale = intensity_scale(A, masked, kind=kind)
    problem = Problem(A, masked / scale[:, None, None, None], scale, [(name, 0)])
    return Case(name, 0, problem, A.fully_sampled().adjoint(kspace[None]) / scale)


def coil_maps(kspace: torch.Tensor) -> torch.Tensor:
    """Return ESPIRiT's maps from the centre of fully sampled k-space; of a single coil they are one."""
    if len(kspace) == 1:
        return torch.ones_like(kspace)
    height, width = kspace.shape[-2:]
    mask, half = torch.zeros(height, width), LARGEST_CALIBRATION // 2
    mask[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = 1
    return espirit_maps(kspace * mask, mask)


# ---- Methods


def row_of(image: torch.Tensor, case: Case, **others: Any) -> dict[str, Any]:
    """Return what there is to say of an image, (row, column)."""
    score = quality(image, case.reference[0])
    known = {"psnr": score.psnr, "ssim": score.ssim, "nmse": score.nmse} | others
    return {name: known.get(name, float("nan")) for name in COLUMNS}


def by_classical(name: str, case: Case) -> dict[str, tuple[dict[str, Any], torch.Tensor]]:
    """Reconstruct with the best λ by the reference; PSNR has one maximum over λ, so that a walk finds it."""
    method = classical(name)

    def tried(number: int) -> tuple[dict[str, Any], torch.Tensor]:
        value = REGULARIZATIONS[number]
        image = method.reconstruct(value, case)[""].image
        return row_of(image, case, tuned=float("nan") if name == ZERO_FILLED else value), image

    number = len(REGULARIZATIONS) // 3
    best = tried(number)
    for step in () if name == ZERO_FILLED else (1, -1):
        while (
            0 <= number + step < len(REGULARIZATIONS) and (other := tried(number + step))[0]["psnr"] > best[0]["psnr"]
        ):
            number, best = number + step, other
    return {name: best}


def by_system(
    name: str, prior: nn.Module, inference: Inference, case: Case
) -> dict[str, tuple[dict[str, Any], torch.Tensor]]:
    """Reconstruct with a system as it is: one image, or MAP and mean, and the deviation of the magnitude."""
    if isinstance(inference, Map):
        try:
            estimated_noise_std(case.problem.masked_kspace, case.problem.A.sampling_mask)
            inference = replace(inference, noise_level="estimated")
        except DeepenError as error:
            print(f"{name} {case.volume}: noise of training, {error}", flush=True)
    result = reconstruct(case.problem, prior, inference, seed=0)
    scaled = {
        key: result.arrays[key][0] / case.problem.scale
        for key in ("map", "mean", "image", "std")
        if key in result.arrays
    }
    figures = misfit_arrays(case.problem, prior, inference, result.image)
    shared = {
        "noise_std": float(inference.noise_std_of(case.problem)[0]),
        "flagged": float(any(not float(figures[figure][0]) <= limit for figure, limit in LIMITS.items())),
    }
    std, found = scaled.pop("std", None), {}
    for key, image in scaled.items():
        columns = dict(shared)
        if key == "mean" and std is not None:
            chains = inference.num_samples
            spread = posterior_quality(image, std, case.reference[0], num_chains=chains)
            columns |= {"std": spread.std, "error": spread.error, "coverage_90": spread.coverage_90}
        found[name if key == "image" else f"{name}_{key}"] = row_of(image, case, **columns), image
    if std is not None:
        found[f"{name}_std"] = dict.fromkeys(COLUMNS, float("nan")), std
    return found


def main() -> None:
    """Reconstruct all slices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--system", nargs="+", action="append", default=[], metavar="NAME CONFIGURATION [CHECKPOINT]")
    parser.add_argument("--masks", type=Path, help=".npz file of further masks, (row, column)")
    parser.add_argument("--seed", type=int, default=0, help="of the masks that are drawn")
    args = parser.parse_args()
    torch.set_num_threads(len(available_cores()))
    systems = {}
    for name, configuration, *checkpoint in args.system:
        path = Path(configuration)
        prior = load_prior(Path(checkpoint[0]), path) if checkpoint else pretrained_for(path)
        systems[name] = (prior, load_system(path).inference, intensity_scale_of(path))
    for name, kspace in progress_bar(list(read_slices(args.slices)), name="slices", unit="slice"):
        height, width = kspace.shape[-2:]
        masks = draw_masks(height, width, args.seed)
        masks |= masks_of_file(args.masks, height, width) if args.masks else {}
        maps = coil_maps(kspace)
        for mask_name, mask in masks.items():
            folder = args.output / name / mask_name
            for method in (ZERO_FILLED, *CLASSICAL, *systems):
                if (folder / f"{method}.csv").is_file():
                    continue
                kind = systems[method][2] if method in systems else FIELD_OF_VIEW
                case = case_of(name, kspace, maps, mask, kind)
                with torch.no_grad():
                    if method in systems:
                        found = by_system(method, *systems[method][:2], case)
                    else:
                        found = by_classical(method, case)
                images = {row: image * case.problem.scale for row, (_, image) in found.items()}
                write_images(folder / f"{method}.h5", images | {"reference": case.reference[0] * case.problem.scale})
                labels = {
                    "slice": name,
                    "coils": len(kspace),
                    "mask": mask_name,
                    "sampled": float(mask.double().mean()),
                }
                write_csv(
                    folder / f"{method}.csv",
                    [labels | {"method": row} | columns for row, (columns, _) in found.items()],
                )


if __name__ == "__main__":
    main()
