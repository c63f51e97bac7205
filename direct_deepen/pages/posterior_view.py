"""What one looks at in a posterior file: its images on common scales, and its figures."""

import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.html_page import Html, Reel, definitions, details, page, section, viewer
from direct_deepen.pages.pictures import Panel
from direct_deepen.posterior.posterior_file import PosteriorVolume
from direct_deepen.progress import progress_bar

TITLES = {"map": "MAP", "mean": "posterior mean", "image": "reconstruction"}
BRIGHTEST = 0.999
"""The quantile of the pixels of a volume that is shown as white."""
MOST_UNCERTAIN = 0.995
"""The same for errors and standard deviations, as in the figures of ``direct-deepen score``."""
_FIGURES = {
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


def panels(volume: PosteriorVolume, references: np.ndarray | None = None) -> list[Panel]:
    """Return what there is to see of a volume: magnitudes on one scale, error and standard deviation on another.

    Parameters
    ----------
    volume
        The file; what it lacks is left out.
    references
        Magnitudes of the fully sampled images, real (slice, row, column), in the units of the data.

    Raises
    ------
    DeepenError
        If the file holds no image, or the references have another shape.
    """
    estimates = _estimates(volume)
    arrays = volume.arrays
    title, best = list(estimates.items())[-1]
    if references is not None:
        require(
            references.shape == best.shape,
            f"{volume.path}: images have shape {best.shape}; allowed with these references: {references.shape}",
        )
        estimates = {"reference": references, **estimates}
    white = _positive(np.quantile(best if references is None else references, BRIGHTEST))
    shown = [Panel(name, images, white) for name, images in estimates.items()]

    uncertainty = {}
    if references is not None:
        uncertainty[f"|error| of {title.removeprefix('posterior ')}"] = np.abs(best - references)
    if "std" in arrays:
        uncertainty["standard deviation"] = arrays["std"]
    if uncertainty:
        limit = _positive(np.quantile(np.stack(list(uncertainty.values())), MOST_UNCERTAIN))
        shown += [Panel(name, images, limit, "inferno") for name, images in uncertainty.items()]

    if "quantiles" in arrays:
        probabilities = np.atleast_1d(volume.attributes["quantile_probabilities"])
        for position in sorted({0, len(probabilities) - 1}):
            name = f"{100 * probabilities[position]:.3g} % quantile"
            shown.append(Panel(name, arrays["quantiles"][:, position], white))
    if "samples" in arrays:
        samples = np.abs(arrays["samples"]).swapaxes(0, 1)
        shown += [Panel(f"sample {number}", images, white) for number, images in enumerate(samples, start=1)]
    return shown


def figures(volume: PosteriorVolume, references: np.ndarray | None = None) -> list[dict[str, str]]:
    """Return the figures of every slice by name, as text; with references also how far the estimates are from them.

    Parameters and errors are those of :func:`panels`.
    """
    estimates = _estimates(volume)
    number_of_slices = len(next(iter(estimates.values())))
    return [
        _quality_figures(volume, estimates, references, number) | _own_figures(volume, number)
        for number in range(number_of_slices)
    ]


def file_figures(volume: PosteriorVolume) -> dict[str, str]:
    """Return what a file says of itself by name, as text: settings, seed and versions."""
    attributes = volume.attributes
    result = {title: _text(attributes[name]) for name, title in _ATTRIBUTES.items() if name in attributes}
    if "quantile_probabilities" in attributes:
        probabilities = np.atleast_1d(attributes["quantile_probabilities"])
        result["quantiles"] = ", ".join(f"{100 * probability:.3g} %" for probability in probabilities)
    return result


def posterior_page(volume: PosteriorVolume, references: np.ndarray | None = None) -> Html:
    """Return a page through which one scrolls slice by slice; parameters and errors are those of :func:`panels`."""
    shown = panels(volume, references)
    number_of_slices, rows, columns = shown[0].images.shape
    labels = [f"slice {number + 1} of {number_of_slices}" for number in range(number_of_slices)]
    configuration = str(volume.attributes.get("configuration", ""))
    about = [section("This file", definitions(file_figures(volume)))]
    if configuration:
        about.append(details("configuration", configuration))
    subtitle = f"{number_of_slices} slices of {rows}×{columns}; magnitudes, in the units of the data"
    reels = [Reel.of(panel) for panel in progress_bar(shown, name="page", unit="panel")]
    body = viewer(reels, labels, figures(volume, references), *about)
    return page(volume.name, body, subtitle=subtitle)


def _estimates(volume: PosteriorVolume) -> dict[str, np.ndarray]:
    return {TITLES[name]: np.abs(volume.arrays[name]) for name in volume.estimates()}


def _own_figures(volume: PosteriorVolume, number: int) -> dict[str, str]:
    arrays = volume.arrays
    result = {title: _text(arrays[name][number]) for name, title in _FIGURES.items() if name in arrays}
    if "converged" in arrays:
        result["MAP converged"] = "yes" if arrays["converged"][number] else "no"
    medians = {title: _text(np.median(arrays[name][number])) for name, title in _MEDIANS.items() if name in arrays}
    return result | medians


def _quality_figures(
    volume: PosteriorVolume, estimates: dict[str, np.ndarray], references: np.ndarray | None, number: int
) -> dict[str, str]:
    if references is None:
        return {}
    result = {}
    reference = torch.from_numpy(references[number])
    for title, images in estimates.items():
        score = quality(torch.from_numpy(images[number]), reference)
        result[f"PSNR, {title}"] = f"{score.psnr:.2f} dB"
        result[f"SSIM, {title}"] = f"{score.ssim:.3f}"
    return result


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _positive(limit: float) -> float:
    """Return a scale of brightness, for images that are zero everywhere as well."""
    return float(limit) if limit > 0 else 1.0
