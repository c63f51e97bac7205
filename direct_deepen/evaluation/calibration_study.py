"""A calibration from data and weights to a scale and tables: fitted on validation data, judged on test data."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from direct_deepen.data.cases import cases
from direct_deepen.engines.calibration_file import Calibration
from direct_deepen.engines.checkpoints import digest_of
from direct_deepen.engines.reconstruction import named_generator, sample_posterior
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.sample_store import fingerprint, kept_posterior
from direct_deepen.evaluation.tables import interval_over_volumes, markdown_table
from direct_deepen.inference import Inference, Sampler
from direct_deepen.posterior.calibration import (
    LEVELS,
    REMOVED,
    Sparsification,
    attainable_coverage,
    containing_level,
    correlations,
    coverage,
    fit_std_scale,
    object_pixels,
    sparsification,
    with_data_noise,
)
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.progress import progress_bar
from direct_deepen.version import VERSION

_logger = logging.getLogger(__name__)

FITTED_LEVEL = 0.9
REPORTED_LEVELS = (0.5, 0.9, 0.95)
CLEAN, DATA_NOISE, SAMPLE = "clean", "data noise", "own sample"
"""What intervals are to hold: the reference; the reference with the data noise that samples carry by construction; and,
for comparison, a sample of a chain that is left out, which is what an exact posterior of this shape would have met."""
OBJECT, EVERYWHERE = "object", "all"
BEFORE, AFTER = "before", "after"
_BINS = 10


@dataclass(frozen=True)
class SampledSlice:
    """One slice: its posterior and the magnitude of its reference, both with a batch of one, in scaled intensities."""

    case: str
    posterior: Posterior
    reference: torch.Tensor


class Kind(NamedTuple):
    """Before or after the scale; against which reference; on which pixels."""

    stage: str
    reference: str
    pixels: str


@dataclass(frozen=True)
class Assessment:
    """How a posterior does on the pixels of one slice.

    ``curve`` is the coverage at :data:`~direct_deepen.posterior.calibration.LEVELS`. ``binned_spread`` and
    ``binned_error`` are mean squares of standard deviation and error, in bins of as many pixels by rising standard
    deviation. ``statistics`` are the numbers of the tables.
    """

    case: str
    kind: Kind
    curve: torch.Tensor
    sparsification: Sparsification
    binned_spread: torch.Tensor
    binned_error: torch.Tensor
    statistics: dict[str, float]


# ---- Samples


def sampled_slices(
    dataset: Any,
    prior: nn.Module,
    inference: Sampler,
    *,
    coil_maps: str,
    seed: int,
    folder: Path,
    limit: int | None,
    device: str,
    label: str,
) -> Iterator[SampledSlice]:
    """Sample the posteriors of a dataset, at most ``limit`` slices spread evenly; samples are kept in ``folder``."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    chosen = {number * len(dataset) // count for number in range(count)}
    _logger.info("%s: %i of %i slices, %s", label, count, len(dataset), inference.sampling())
    with progress_bar(name=label, unit="slice", total=count) as bar:
        for number, case in enumerate(cases(dataset, coil_maps=coil_maps, cache=folder, device=device)):
            if number in chosen:
                name = f"{case.volume}#{case.slice_number}"
                key = fingerprint(case.problem, prior, inference, seed=seed)
                sample = partial(sample_posterior, case.problem, prior, inference, seed=seed)
                posterior = kept_posterior(folder / f"{name}.pt", key, sample)
                yield SampledSlice(name, posterior, case.reference.abs().cpu())
                bar.update()


# ---- Fit and assessment


def fit(slices: Sequence[SampledSlice], prior: nn.Module, inference: Sampler, *, seed: int) -> Calibration:
    """Fit the scale with which 90 % intervals hold 90 % of the references inside the object, see `fit_std_scale`."""
    posteriors, references = [item.posterior for item in slices], [item.reference for item in slices]
    scale = fit_std_scale(posteriors, references, level=FITTED_LEVEL, progress=True)
    before = [
        float(coverage(containing_level(item.posterior, item.reference)[object_pixels(item.reference)], [FITTED_LEVEL]))
        for item in slices
    ]
    return Calibration(
        std_scale=scale,
        level=FITTED_LEVEL,
        coverage_before=float(np.mean(before)),
        volumes=len({_volume(item.case) for item in slices}),
        slices=len(slices),
        weights_sha256=digest_of(prior.state_dict()),
        sampling=inference.sampling(),
        seed=seed,
        direct_deepen_version=VERSION,
        torch_version=str(torch.__version__),
    )


def _volume(case: str) -> str:
    return case.rpartition("#")[0]


def assess(item: SampledSlice, std_scale: float, *, data_noise_std: float, seed: int) -> list[Assessment]:
    """Assess a posterior before and after a scale, against all references, inside the object and everywhere."""
    inside = object_pixels(item.reference)
    volume, _, number = item.case.rpartition("#")
    generator = named_generator(seed, (f"data noise of {volume}", int(number)), inside.device)
    noisy = with_data_noise(item.reference, data_noise_std, generator)
    # A whole chain is left out: states of one chain are alike.
    keep = item.posterior.diagnostics.keep
    images = item.posterior.images
    others = Posterior(images=images[keep:], diagnostics=item.posterior.diagnostics)
    rescaled = item.posterior.rescaled(std_scale)
    compared = [
        (BEFORE, CLEAN, item.posterior, item.reference),
        (BEFORE, DATA_NOISE, item.posterior, noisy),
        (BEFORE, SAMPLE, others, images[keep - 1].abs()),
        (AFTER, CLEAN, rescaled, item.reference),
        (AFTER, DATA_NOISE, rescaled, noisy),
    ]
    return [
        _assess(item.case, Kind(stage, name, where), posterior, reference, pixels)
        for stage, name, posterior, reference in compared
        for where, pixels in ((OBJECT, inside), (EVERYWHERE, torch.ones_like(inside)))
    ]


def _assess(case: str, kind: Kind, posterior: Posterior, reference: torch.Tensor, pixels: torch.Tensor) -> Assessment:
    std = posterior.std[pixels].double()
    error = (posterior.mean.abs() - reference)[pixels].abs().double()
    curve = coverage(containing_level(posterior, reference)[pixels], LEVELS)
    sparse = sparsification(std, error)
    pearson, spearman = correlations(std, error)
    statistics = {f"coverage_{100 * level:.0f}": float(curve[LEVELS.index(level)]) for level in REPORTED_LEVELS} | {
        "calibration_error": float((curve - torch.tensor(LEVELS, dtype=torch.float64)).abs().mean()),
        "pearson": pearson,
        "spearman": spearman,
        "ause": sparse.area,
        "spread_over_error": float(std.square().mean().sqrt() / error.square().mean().sqrt()),
    }
    spread, errors = (
        torch.stack([values[part].square().mean() for part in std.argsort().chunk(_BINS)]) for values in (std, error)
    )
    return Assessment(case, kind, curve, sparse, spread, errors, statistics)


# ---- Tables


def select(assessments: Sequence[Assessment], stage: str, reference: str, pixels: str) -> list[Assessment]:
    """Return the assessments of one kind, a slice each."""
    return [item for item in assessments if item.kind == (stage, reference, pixels)]


def _by_kind(assessments: Sequence[Assessment]) -> list[tuple[Kind, list[Assessment]]]:
    """Return every kind with its assessments, in the order they first appear, but those of the object first."""
    kinds = sorted(dict.fromkeys(item.kind for item in assessments), key=lambda kind: kind.pixels != OBJECT)
    return [(kind, select(assessments, *kind)) for kind in kinds]


def mean_over(assessments: Sequence[Assessment], values: Callable[[Assessment], torch.Tensor]) -> torch.Tensor:
    """Return the mean over slices of a tensor of every assessment."""
    return torch.stack([values(item) for item in assessments]).mean(dim=0)


def case_rows(assessments: Sequence[Assessment]) -> list[dict[str, Any]]:
    """Return a row for every slice and kind."""
    return [{"case": item.case, **item.kind._asdict(), **item.statistics} for item in assessments]


def curve_rows(assessments: Sequence[Assessment]) -> list[dict[str, Any]]:
    """Return the calibration curves, means over slices: a row for every kind and level."""
    return [
        kind._asdict() | {"level": level, "coverage": covered}
        for kind, found in _by_kind(assessments)
        for level, covered in zip(LEVELS, mean_over(found, lambda item: item.curve).tolist(), strict=True)
    ]


def sparsification_rows(assessments: Sequence[Assessment]) -> list[dict[str, Any]]:
    """Return the sparsification curves, means over slices: a row for every kind and share of pixels left out."""
    rows = []
    for kind, found in _by_kind(assessments):
        by_std = mean_over(found, lambda item: item.sparsification.by_std).tolist()
        oracle = mean_over(found, lambda item: item.sparsification.oracle).tolist()
        for share, error, least in zip(REMOVED, by_std, oracle, strict=True):
            rows.append(kind._asdict() | {"removed": share, "by_std": error, "oracle": least})
    return rows


def calibration_report(assessments: Sequence[Assessment], calibration: Calibration, samples: int) -> str:
    """Return the statistics before and after as tables in Markdown, one for the object and one for all pixels.

    ``samples`` of every posterior are behind them.
    """
    parts = []
    for pixels, title in ((OBJECT, "Inside the object"), (EVERYWHERE, "All pixels")):
        rows = [
            {"reference": kind.reference, "scale": f"{calibration.std_scale:.3f}" if kind.stage == AFTER else "none"}
            | _cells(found)
            for kind, found in _by_kind(assessments)
            if kind.pixels == pixels
        ]
        parts += [f"### {title}\n", markdown_table(rows)]
    exact = ", ".join(f"{100 * attainable_coverage(level, samples):.1f}" for level in REPORTED_LEVELS)
    tested = select(assessments, BEFORE, CLEAN, OBJECT)
    parts.append(
        f"{len(tested)} test slices of {len({_volume(item.case) for item in tested})} volumes. Coverage of central "
        f"intervals in per cent; ± is the 95 % interval of the mean over volumes. Independent samples of the exact "
        f"posterior, {samples} of them, would cover {exact} %.\n"
        f"Scale {calibration.std_scale:.4g}, fitted on {calibration.slices} validation slices of "
        f"{calibration.volumes} volumes, where {calibration.level:.0%} intervals covered "
        f"{100 * calibration.coverage_before:.1f} % of the object.\n"
    )
    return "\n".join(parts)


_COLUMNS = {
    f"{100 * level:.0f} %": (f"coverage_{100 * level:.0f}", 100, "{:.1f} ± {:.1f}") for level in REPORTED_LEVELS
}
_COLUMNS |= {
    "calibration error": ("calibration_error", 1, "{:.3f}"),
    "Pearson": ("pearson", 1, "{:.2f} ± {:.2f}"),
    "Spearman": ("spearman", 1, "{:.2f} ± {:.2f}"),
    "AUSE": ("ause", 1, "{:.2f} ± {:.2f}"),
    "spread over error": ("spread_over_error", 1, "{:.2f}"),
}
"""Columns of the report: a statistic, its unit, and how its mean over slices and interval over volumes are written."""


def _cells(found: Sequence[Assessment]) -> dict[str, str]:
    cells = {}
    for title, (name, unit, form) in _COLUMNS.items():
        mean, half = interval_over_volumes({item.case: item.statistics[name] for item in found})
        cells[title] = form.format(unit * mean, unit * half)
    return cells


def require_sampler(inference: Inference) -> Sampler:
    """Return the inference of a configuration; it is to sample, and enough to leave a chain out."""
    if not isinstance(inference, Sampler):
        raise DeepenError(f"model.inference.name: {type(inference).__name__} draws no samples; allowed: a sampler")
    count = inference.num_samples
    require(count >= 3, f"model.inference.num_samples is {count}; allowed for a calibration: 3 or more")
    return inference
