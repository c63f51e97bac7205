"""What one looks at in a posterior file: its images on common scales, and its statistics."""

from collections.abc import Mapping

import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.drawing import MOST_UNCERTAIN, brightness_limit
from direct_deepen.pages.region_samples import RegionSamples
from direct_deepen.pages.view import Panel, View
from direct_deepen.posterior.misfit import LIKELY
from direct_deepen.posterior.posterior_file import PosteriorVolume, doubts_of

TITLES = {"map": "MAP", "mean": "posterior mean", "image": "reconstruction"}
BRIGHTEST = 0.999
"""The quantile of the pixels of a volume that is shown as white."""
_STATISTICS = {
    "cost": "cost C",
    "scale": "intensity scale",
    "outside_band": "share outside the measured band",
    "brightness": "largest value, of SENSE's",
    "departure": "departure from SENSE",
    "residual": "residual, of the noise",
    "unexplained": "share of the data that is not explained",
    "noise_above": "left at the edge of k-space, of the noise",
    "noise_below": "noise, of what is left at the edge of k-space",
    "spike": "left at the worst sample, of its neighbours",
    "off_centre": "samples from the largest data to the middle",
    "unlike_training": "E per pixel, of noise",
    "energy_per_pixel": "E per pixel",
    "step_size": "step τ",
    "curvature": "largest curvature",
    "map_gradient_evaluations": "∇E for MAP",
    "posterior_gradient_evaluations": "∇E for samples",
    "noise_gradient_evaluations": "∇E for the noise",
    "map_seconds": "seconds for MAP",
    "posterior_seconds": "seconds for samples",
    "noise_seconds": "seconds for the noise",
    "seconds": "seconds",
}
_MEDIANS = {"split_r_hat": "R̂, median", "effective_sample_size": "ESS, median"}
_ATTRIBUTES = {
    "noise_std": "noise level ε",
    "num_samples": "chains",
    "num_steps": "steps of a chain",
    "keep": "states kept of a chain",
    "seed": "seed",
    "direct_deepen_version": "direct-deepen",
    "direct_version": "DIRECT",
    "torch_version": "PyTorch",
}


def posterior_view(
    volume: PosteriorVolume, references: np.ndarray | None = None, regions: RegionSamples | None = None
) -> View:
    """Return the view of a volume: magnitudes on one scale, error and standard deviation on another.

    What the file lacks is left out. ``references`` are magnitudes of the fully sampled images, real (slice, row,
    column), in the units of the data. ``regions`` are the samples of the file for a page.
    """
    estimates = {TITLES[name]: np.abs(volume.arrays[name]) for name in volume.estimates()}
    slices, rows, columns = shape = next(iter(estimates.values())).shape
    if references is not None:
        require(
            references.shape == shape,
            f"{volume.path}: images have shape {shape}; allowed with these references: {references.shape}",
        )
    attributes = volume.attributes
    about = {title: _text(attributes[name]) for name, title in _ATTRIBUTES.items() if name in attributes}
    if "quantile_probabilities" in attributes:
        about["quantiles"] = ", ".join(_percentages(volume))
    if regions is not None:
        uncalibrated = "" if attributes.get("calibrated", False) else "not calibrated: may hold less than they say"
        notes = [note for note in (uncalibrated, regions.note) if note]
        about |= {"intervals of regions": "; ".join(notes)} if notes else {}
    return View(
        title=volume.name,
        panels=_panels(volume, estimates, references),
        labels=[f"slice {number} of {slices}" for number in range(1, slices + 1)],
        statistics=[
            _doubts(volume, number) | _statistics(volume.arrays, estimates, references, number)
            for number in range(slices)
        ],
        explanation=f"{slices} slices of {rows}×{columns}; magnitudes, in the units of the data",
        about=about,
        configuration=str(attributes.get("configuration", "")),
        regions=regions,
    )


def _panels(volume: PosteriorVolume, estimates: Mapping[str, np.ndarray], references: np.ndarray | None) -> list[Panel]:
    arrays = volume.arrays
    title, best = list(estimates.items())[-1]
    certain, uncertain, drawn = dict(estimates), {}, {}
    if references is not None:
        certain = {"reference": references} | certain
        uncertain[f"|error| of {title.removeprefix('posterior ')}"] = np.abs(best - references)
    if "std" in arrays:
        uncertain["standard deviation"] = arrays["std"]
    if "quantiles" in arrays:
        names = _percentages(volume)
        # Those of air reach below zero, which no panel shows.
        drawn = {
            f"{names[place]} quantile": np.maximum(arrays["quantiles"][:, place], 0.0)
            for place in sorted({0, len(names) - 1})
        }
    if "samples" in arrays:
        samples = np.abs(arrays["samples"]).swapaxes(0, 1)
        drawn |= {f"sample {number}": images for number, images in enumerate(samples, start=1)}

    white = brightness_limit([best if references is None else references], BRIGHTEST)
    limit = brightness_limit(uncertain.values(), MOST_UNCERTAIN) if uncertain else None
    return [
        *(Panel(name, images, white) for name, images in certain.items()),
        *(Panel(name, images, limit, "inferno") for name, images in uncertain.items()),
        *(Panel(name, images, white) for name, images in drawn.items()),
    ]


def _doubts(volume: PosteriorVolume, number: int) -> dict[str, str]:
    """Return what shows a slice not to be trusted, if anything does."""
    reasons = [
        f"{_STATISTICS[name]} {_text(volume.arrays[name][number])}, above {_text(limit)} ({LIKELY[name]})"
        for name, (limit, slices) in doubts_of(volume).items()
        if number in slices
    ]
    return {"not to be trusted": "; ".join(reasons)} if reasons else {}


def _statistics(
    arrays: Mapping[str, np.ndarray], estimates: Mapping[str, np.ndarray], references: np.ndarray | None, number: int
) -> dict[str, str]:
    result: dict[str, str] = {}
    # There is nothing to divide by in an empty slice.
    if references is not None and references[number].any():
        for title, images in estimates.items():
            score = quality(torch.from_numpy(images[number]), torch.from_numpy(references[number]))
            result |= {f"PSNR (slice maximum), {title}": f"{score.psnr:.2f} dB", f"SSIM, {title}": f"{score.ssim:.3f}"}
    result |= {title: _text(arrays[name][number]) for name, title in _STATISTICS.items() if name in arrays}
    if "converged" in arrays:
        result["MAP converged"] = "yes" if arrays["converged"][number] else "no"
    return result | {
        title: _text(np.median(arrays[name][number])) for name, title in _MEDIANS.items() if name in arrays
    }


def _percentages(volume: PosteriorVolume) -> list[str]:
    probabilities = np.atleast_1d(volume.attributes["quantile_probabilities"])
    return [f"{100 * probability:.3g} %" for probability in probabilities]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
