"""What one looks at in a posterior file: its images on common scales, and its statistics."""

from collections.abc import Mapping

import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.view import Panel, View
from direct_deepen.posterior.posterior_file import PosteriorVolume

TITLES = {"map": "MAP", "mean": "posterior mean", "image": "reconstruction"}
BRIGHTEST = 0.999
"""The quantile of the pixels of a volume that is shown as white."""
MOST_UNCERTAIN = 0.995
"""The same for errors and standard deviations, as in the pictures of ``direct-deepen benchmark``."""
_STATISTICS = {
    "cost": "cost C",
    "scale": "intensity scale",
    "step_size": "step τ",
    "curvature": "largest curvature",
    "map_gradient_evaluations": "∇E for MAP",
    "posterior_gradient_evaluations": "∇E for samples",
    "map_seconds": "seconds for MAP",
    "posterior_seconds": "seconds for samples",
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


def posterior_view(volume: PosteriorVolume, references: np.ndarray | None = None) -> View:
    """Return the view of a volume: magnitudes on one scale, error and standard deviation on another.

    Parameters
    ----------
    volume
        The file; what it lacks is left out.
    references
        Magnitudes of the fully sampled images, real (slice, row, column), in the units of the data; with them also how
        far the estimates are from them.

    Raises
    ------
    DeepenError
        If the file holds no image, or the references have another shape.
    """
    estimates = {TITLES[name]: np.abs(volume.arrays[name]) for name in volume.estimates()}
    slices, rows, columns = next(iter(estimates.values())).shape
    if references is not None:
        require(
            references.shape == (slices, rows, columns),
            f"{volume.path}: images have shape {(slices, rows, columns)}; allowed with these references: "
            f"{references.shape}",
        )
    attributes = volume.attributes
    about = {title: _text(attributes[name]) for name, title in _ATTRIBUTES.items() if name in attributes}
    if "quantile_probabilities" in attributes:
        about["quantiles"] = ", ".join(_percent(probability) for probability in _probabilities(volume))
    return View(
        title=volume.name,
        panels=_panels(volume, estimates, references),
        labels=[f"slice {number} of {slices}" for number in range(1, slices + 1)],
        statistics=[
            _distances(estimates, references, number) | _statistics(volume.arrays, number) for number in range(slices)
        ],
        explanation=f"{slices} slices of {rows}×{columns}; magnitudes, in the units of the data",
        about=about,
        configuration=str(attributes.get("configuration", "")),
    )


def _panels(volume: PosteriorVolume, estimates: Mapping[str, np.ndarray], references: np.ndarray | None) -> list[Panel]:
    arrays = volume.arrays
    title, best = list(estimates.items())[-1]
    shown = dict(estimates) if references is None else {"reference": references, **estimates}
    white = _positive(np.quantile(best if references is None else references, BRIGHTEST))
    panels = [Panel(name, images, white) for name, images in shown.items()]

    uncertainty = {}
    if references is not None:
        uncertainty[f"|error| of {title.removeprefix('posterior ')}"] = np.abs(best - references)
    if "std" in arrays:
        uncertainty["standard deviation"] = arrays["std"]
    if uncertainty:
        limit = _positive(np.quantile(np.stack(list(uncertainty.values())), MOST_UNCERTAIN))
        panels += [Panel(name, images, limit, "inferno") for name, images in uncertainty.items()]

    if "quantiles" in arrays:
        probabilities = _probabilities(volume)
        panels += [
            Panel(f"{_percent(probabilities[position])} quantile", arrays["quantiles"][:, position], white)
            for position in sorted({0, len(probabilities) - 1})
        ]
    samples = np.abs(arrays["samples"]).swapaxes(0, 1) if "samples" in arrays else ()
    return panels + [Panel(f"sample {number}", images, white) for number, images in enumerate(samples, start=1)]


def _distances(estimates: Mapping[str, np.ndarray], references: np.ndarray | None, number: int) -> dict[str, str]:
    result: dict[str, str] = {}
    if references is not None:
        reference = torch.from_numpy(references[number])
        for title, images in estimates.items():
            score = quality(torch.from_numpy(images[number]), reference)
            result |= {f"PSNR, {title}": f"{score.psnr:.2f} dB", f"SSIM, {title}": f"{score.ssim:.3f}"}
    return result


def _statistics(arrays: Mapping[str, np.ndarray], number: int) -> dict[str, str]:
    result = {title: _text(arrays[name][number]) for name, title in _STATISTICS.items() if name in arrays}
    if "converged" in arrays:
        result["MAP converged"] = "yes" if arrays["converged"][number] else "no"
    medians = {title: _text(np.median(arrays[name][number])) for name, title in _MEDIANS.items() if name in arrays}
    return result | medians


def _probabilities(volume: PosteriorVolume) -> np.ndarray:
    return np.atleast_1d(volume.attributes["quantile_probabilities"])


def _percent(probability: float) -> str:
    return f"{100 * probability:.3g} %"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _positive(limit: float) -> float:
    """Return a scale of brightness, for images that are zero everywhere as well."""
    return float(limit) if limit > 0 else 1.0
