"""A calibration from data and weights to factors and tables: fitted on validation data, judged on test data."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.rings import ring_bounds
from direct_deepen.posterior.calibration import (
    LEVELS,
    REMOVED,
    Held,
    Sparsification,
    block_means,
    controlled_scale,
    correlation_ceiling,
    correlations,
    fit_ring_scales,
    fit_std_scale,
    held,
    needed_scales,
    object_pixels,
    ring_powers,
    sparsification,
)
from direct_deepen.posterior.intervals import coverage
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
BLOCKS = {f"{size}×{size}": size for size in (2, 4, 8)}
"""Means of blocks that lie in the object: their size by the name of the pixels."""
BEFORE, AFTER = "before", "after"
_BINS = 10
_FEW = 3
"""Blocks below which there is nothing to correlate."""


@dataclass(frozen=True)
class SampledSlice:
    """One slice: its posterior and its reference, complex, both with a batch of one, in scaled intensities."""

    case: str
    posterior: Posterior
    reference: torch.Tensor


class Kind(NamedTuple):
    """Before or after the factors; against which reference; on which pixels, or blocks of them."""

    stage: str
    reference: str
    pixels: str


@dataclass(frozen=True)
class Assessment:
    """How a posterior does on the pixels, or blocks, of one slice.

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
        for case in cases(dataset, chosen=chosen, coil_maps=coil_maps, cache=folder, device=device):
            name = f"{case.volume}#{case.slice_number}"
            key = fingerprint(case.problem, prior, inference, seed=seed)
            sample = partial(sample_posterior, case.problem, prior, inference, seed=seed)
            posterior = kept_posterior(folder / f"{name}.pt", key, sample)
            yield SampledSlice(name, posterior, case.reference.cpu())
            bar.update()


# ---- Fit and assessment


def fit(slices: Sequence[SampledSlice], prior: nn.Module, inference: Sampler, *, seed: int) -> Calibration:
    """Fit what corrects the samples of validation data.

    First a factor for every ring of k-space, with which they have the power of the error (:func:`fit_ring_scales`),
    then one for all, with which 90 % intervals hold 90 % of the pixels of the object (:func:`fit_std_scale`). And by
    how much intervals have to be wider for a guarantee, where there are volumes enough (:func:`controlled_scale`):
    those of the samples as they were drawn, as these volumes have had a part in the factors, and a further one has not.
    """
    posteriors, references = [item.posterior for item in slices], [item.reference for item in slices]
    rings = fit_ring_scales(posteriors, references)
    shaped = [posterior.rescaled(1.0, rings) for posterior in posteriors]
    scale = fit_std_scale(shaped, references, level=FITTED_LEVEL)
    needed: dict[str, list[torch.Tensor]] = {}
    for item in slices:
        needed.setdefault(_volume(item.case), []).append(_needed(item))
    before = [float((scales <= 1).double().mean()) for found in needed.values() for scales in found]
    return Calibration(
        std_scale=scale,
        ring_scales=list(rings),
        guaranteed_scale=controlled_scale([torch.cat(found) for found in needed.values()], level=FITTED_LEVEL),
        level=FITTED_LEVEL,
        coverage_before=float(np.mean(before)),
        volumes=len(needed),
        slices=len(slices),
        weights_sha256=digest_of(prior.state_dict()),
        sampling=inference.sampling(),
        seed=seed,
        direct_deepen_version=VERSION,
        torch_version=str(torch.__version__),
    )


def _needed(item: SampledSlice) -> torch.Tensor:
    """Return by which factor the intervals of the pixels of the object have to be wider, real (pixel,)."""
    return needed_scales(item.posterior, item.reference, level=FITTED_LEVEL)[object_pixels(item.reference)]


def _volume(case: str) -> str:
    return case.rpartition("#")[0]


def assess(item: SampledSlice, calibration: Calibration, *, data_noise_std: float, seed: int) -> list[Assessment]:
    """Assess a posterior before and after a calibration, against all references, for pixels and blocks."""
    volume, _, number = item.case.rpartition("#")
    generator = named_generator(seed, (f"data noise of {volume}", int(number)), item.reference.device)
    noisy = item.reference + data_noise_std * complex_normal_like(item.reference, generator=generator)
    # A whole chain is left out, and its mirror image: states of one chain are alike.
    chains = item.posterior.images.unflatten(0, (-1, item.posterior.diagnostics.keep))
    left_out = 2 if calibration.sampling.get("antithetic", False) else 1
    compared = [
        (BEFORE, CLEAN, item.posterior, item.reference),
        (BEFORE, DATA_NOISE, item.posterior, noisy),
        (BEFORE, SAMPLE, Posterior.from_chains(chains[left_out:]), chains[0, -1]),
    ]
    corrected = calibration.corrected(item.posterior)
    compared += [(AFTER, CLEAN, corrected, item.reference), (AFTER, DATA_NOISE, corrected, noisy)]
    inside = object_pixels(item.reference)
    places = {OBJECT: inside, EVERYWHERE: torch.ones_like(inside)}
    places |= {name: block_means(inside.double(), size) == 1 for name, size in BLOCKS.items()}
    return [
        _assess(item.case, Kind(stage, name, where), held(posterior, reference, BLOCKS.get(where, 1)).at(chosen))
        for stage, name, posterior, reference in compared
        for where, chosen in places.items()
        if int(chosen.sum()) >= _FEW
    ]


def _assess(case: str, kind: Kind, found: Held) -> Assessment:
    std = found.std.double()
    error = (found.mean - found.reference).abs().double()
    curve = coverage(found.containing, LEVELS)
    sparse = sparsification(std, error)
    pearson, spearman = correlations(std, error)
    statistics = {f"coverage_{100 * level:.0f}": float(curve[LEVELS.index(level)]) for level in REPORTED_LEVELS} | {
        "calibration_error": float((curve - torch.tensor(LEVELS, dtype=torch.float64)).abs().mean()),
        "pearson": pearson,
        "spearman": spearman,
        "spearman_ceiling": correlation_ceiling(std),
        "ause": sparse.area,
        "spread_over_error": float(std.square().mean().sqrt() / error.square().mean().sqrt()),
    }
    spread, errors = (
        torch.stack([values[part].square().mean() for part in std.argsort().tensor_split(_BINS)])
        for values in (std, error)
    )
    return Assessment(case, kind, curve, sparse, spread, errors, statistics)


@dataclass(frozen=True)
class Rings:
    """Power of the error of one slice by ring of k-space, and what samples predict of it, float64 (ring,) each."""

    case: str
    stage: str
    bounds: list[float]
    """Outer radii of the rings, cycles over the field of view."""
    error: torch.Tensor
    predicted: torch.Tensor


def assess_rings(item: SampledSlice, calibration: Calibration) -> list[Rings]:
    """Return the powers inside the object, against the reference as it is, before and after a calibration."""
    corrected = calibration.corrected(item.posterior)
    bounds = ring_bounds(*item.reference.shape[-2:])
    return [
        Rings(item.case, stage, bounds, *ring_powers(posterior, item.reference))
        for stage, posterior in ((BEFORE, item.posterior), (AFTER, corrected))
    ]


def missed_beyond(item: SampledSlice, factor: float) -> float:
    """Return the share of the object outside 90 % intervals of samples as they were drawn, wider by a factor."""
    return float((_needed(item) > factor).double().mean())


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


def ring_rows(rings: Sequence[Rings]) -> list[dict[str, Any]]:
    """Return the powers by ring: a row for every slice, stage and ring."""
    return [
        {"case": item.case, "stage": item.stage, "ring": bound, "error": error, "predicted": predicted}
        for item in rings
        for bound, error, predicted in zip(item.bounds, item.error.tolist(), item.predicted.tolist(), strict=True)
    ]


def calibration_report(
    assessments: Sequence[Assessment], rings: Sequence[Rings], calibration: Calibration, missed: Mapping[str, float]
) -> str:
    """Return the statistics before and after as tables in Markdown: of the object, of all pixels, by resolution.

    ``missed`` is what :func:`missed_beyond` says of every slice for the guaranteed scale; empty where there is none.
    """
    parts = []
    for pixels, title in ((OBJECT, "Inside the object"), (EVERYWHERE, "All pixels")):
        rows = [
            _named(kind) | _cells(found, _COLUMNS) for kind, found in _by_kind(assessments) if kind.pixels == pixels
        ]
        parts += [f"### {title}\n", markdown_table(rows)]
    parts += [
        "### Means of blocks inside the object\n",
        markdown_table(_resolution_rows(assessments)),
        "### By ring of k-space\n",
        markdown_table(_ratio_rows(rings)),
    ]
    tested = select(assessments, BEFORE, CLEAN, OBJECT)
    factors = ", ".join(f"{scale:.2f}" for scale in calibration.ring_scales)
    parts.append(
        f"{len(tested)} test slices of {len({_volume(item.case) for item in tested})} volumes. Coverage of intervals "
        "in per cent; ± is the 95 % interval of the mean over volumes. By ring: power of the error over what samples "
        "predict, outer radii in cycles over the field of view.\n"
        f"Factors of the rings {factors}, and of all {calibration.std_scale:.4g}, fitted on {calibration.slices} "
        f"validation slices of {calibration.volumes} volumes, where {calibration.level:.0%} intervals covered "
        f"{100 * calibration.coverage_before:.1f} % of the object.\n{_guarantee(calibration, missed)}\n"
    )
    return "\n".join(parts)


def _named(kind: Kind) -> dict[str, str]:
    return {"reference": kind.reference, "factors": "fitted" if kind.stage == AFTER else "none"}


def _resolution_rows(assessments: Sequence[Assessment]) -> list[dict[str, str]]:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    names = {OBJECT: "pixel"} | {name: name for name in BLOCKS}
    for kind, found in _by_kind(assessments):
        if kind.pixels in names:
            row = rows.setdefault((kind.stage, kind.reference), _named(kind))
            row |= {f"{names[kind.pixels]} {title}": cell for title, cell in _cells(found, _AT_A_RESOLUTION).items()}
    return list(rows.values())


def _ratio_rows(rings: Sequence[Rings]) -> list[dict[str, str]]:
    rows = []
    for stage in (BEFORE, AFTER):
        cells = {f"to {bound:.3g}": f"{ratio:.2f}" for bound, ratio in zip(*ratios_by_ring(rings, stage), strict=True)}
        rows.append({"factors": "fitted" if stage == AFTER else "none"} | cells)
    return rows


def ratios_by_ring(rings: Sequence[Rings], stage: str) -> tuple[list[float], list[float]]:
    """Return outer radii of the rings, and the power of the error over what samples predict, summed over slices."""
    found = [item for item in rings if item.stage == stage]
    bounds = max((item.bounds for item in found), key=len)
    error, predicted = (np.zeros(len(bounds)) for _ in range(2))
    for item in found:
        error[: len(item.error)] += item.error.numpy()
        predicted[: len(item.error)] += item.predicted.numpy()
    return bounds, (error / predicted).tolist()


def _guarantee(calibration: Calibration, missed: Mapping[str, float]) -> str:
    scale, level = calibration.guaranteed_scale, calibration.level
    if scale is None:
        return (
            f"No guarantee: for {level:.0%} intervals of a further volume it takes "
            f"{math.ceil(1 / (1 - level) - 1 - 1e-9)} validation volumes and more."
        )
    mean, half = interval_over_volumes({case: 100 * share for case, share in missed.items()})
    return (
        f"{scale:.3g} times as wide, {level:.0%} intervals of the samples as they were drawn miss, in the expectation "
        f"over volumes drawn like these, at most {100 * (1 - level):.0f} % of the object of a further one (conformal "
        f"risk control); of the test volumes they miss {mean:.1f} ± {half:.1f} %."
    )


_COLUMNS = {
    f"{100 * level:.0f} %": (f"coverage_{100 * level:.0f}", 100, "{:.1f} ± {:.1f}") for level in REPORTED_LEVELS
}
_COLUMNS |= {
    "calibration error": ("calibration_error", 1, "{:.3f}"),
    "Pearson": ("pearson", 1, "{:.2f} ± {:.2f}"),
    "Spearman": ("spearman", 1, "{:.2f} ± {:.2f}"),
    "of at most": ("spearman_ceiling", 1, "{:.2f}"),
    "AUSE": ("ause", 1, "{:.2f} ± {:.2f}"),
    "spread over error": ("spread_over_error", 1, "{:.2f}"),
}
"""Columns of the report: a statistic, its unit, and how its mean over slices and interval over volumes are written."""
_AT_A_RESOLUTION = {
    "90 %": ("coverage_90", 100, "{:.1f} ± {:.1f}"),
    "Spearman": ("spearman", 1, "{:.2f}"),
    "of at most": ("spearman_ceiling", 1, "{:.2f}"),
}


def _cells(found: Sequence[Assessment], columns: Mapping[str, tuple[str, int, str]]) -> dict[str, str]:
    cells = {}
    for title, (name, unit, form) in columns.items():
        mean, half = interval_over_volumes({item.case: item.statistics[name] for item in found})
        cells[title] = form.format(unit * mean, unit * half)
    return cells


def require_sampler(inference: Inference) -> Sampler:
    """Return the inference of a configuration; it is to sample, and enough to leave a chain out."""
    if not isinstance(inference, Sampler):
        raise DeepenError(f"model.inference.name: {type(inference).__name__} draws no samples; allowed: a sampler")
    count, least = inference.num_samples, 4 if inference.sampling().get("antithetic", False) else 3
    require(count >= least, f"model.inference.num_samples is {count}; allowed for a calibration: {least} or more")
    return inference
