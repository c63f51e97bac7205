"""Compare reconstructions of the same data: classical methods computed here, trained ones as predicted by DIRECT."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from direct_deepen.data.cases import Case
from direct_deepen.errors import require
from direct_deepen.evaluation.classical import CLASSICAL
from direct_deepen.evaluation.metrics import Quality, quality
from direct_deepen.evaluation.predictions import Prediction
from direct_deepen.progress import Track, progress_bar

_logger = logging.getLogger(__name__)

REGULARIZATIONS = tuple(float(value) for value in np.geomspace(1e-4, 1.0, 17))
"""Candidates of λ of every classical method; the best on validation data is used."""


@dataclass(frozen=True)
class Row:
    """One method on one slice; times in seconds."""

    method: str
    case: str
    psnr: float
    ssim: float
    nmse: float
    seconds: float
    gradient_evaluations: float
    parameters: int


@dataclass(frozen=True)
class Picture:
    """What the figures show of one slice, in scaled intensities: magnitudes by method, deviations by prediction."""

    case: str
    reference: torch.Tensor
    images: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]


def best_value(
    values: Sequence[float],
    cases: Sequence[Case],
    reconstruct: Callable[[float, Case], torch.Tensor],
    name: str,
    track: Track = progress_bar,
) -> float:
    """Return the value whose images, complex (1, height, width), have the highest mean PSNR over the cases."""
    psnr: dict[float, list[float]] = {value: [] for value in values}
    trials = [(value, case) for value in psnr for case in cases]
    for value, case in track(trials, name=f"tune {name}", unit="slice", total=len(trials)):
        psnr[value].append(quality(reconstruct(value, case)[0], case.reference[0]).psnr)
    best = max(psnr, key=lambda value: float(np.mean(psnr[value])))
    _logger.info("%s: %.4g is the best of %i values on %i slices", name, best, len(psnr), len(cases))
    return best


def classical(method: str, value: float, case: Case) -> torch.Tensor:
    """Return the image of a classical method with λ = ``value``, complex (1, height, width)."""
    return CLASSICAL[method](case.problem.A, case.problem.masked_kspace, regularization=value)


def tune(validation: Sequence[Case]) -> dict[str, float]:
    """Return, for every classical method, the λ of :data:`REGULARIZATIONS` with the best mean PSNR on validation."""
    require(len(validation) > 0, "validation data hold no slice")
    return {method: best_value(REGULARIZATIONS, validation, partial(classical, method), method) for method in CLASSICAL}


def compare(
    test: Sequence[Case], predictions: Mapping[str, Prediction], *, regularizations: Mapping[str, float]
) -> tuple[list[Row], list[Picture]]:
    """Score zero-filled, the classical methods with their ``regularizations`` and every prediction on every slice.

    A prediction of DEEPEN gives the rows ``<name>_map`` and, where it sampled, ``<name>_mmse``; any other the row
    ``<name>``.

    Raises
    ------
    DeepenError
        If a prediction lacks a volume, has other shapes, or was made with other sampling masks.
    """
    rows, pictures = [], []
    for case in progress_bar(test, name="compare", unit="slice"):
        columns = _classical(case, regularizations)
        std = {}
        for name, prediction in predictions.items():
            predicted, deviation = _predicted(case, name, prediction)
            columns |= predicted
            if deviation is not None:
                std[name] = deviation
        label = f"{case.volume}#{case.slice_number}"
        for method, column in columns.items():
            score: Quality = quality(column.image, case.reference[0])
            rows.append(
                Row(
                    method, label, score.psnr, score.ssim, score.nmse,
                    column.seconds, column.gradient_evaluations, column.parameters,
                )
            )  # fmt: skip
        images = {method: column.image for method, column in columns.items()}
        pictures.append(Picture(label, case.reference[0].abs(), images, std))
    return rows, pictures


@dataclass(frozen=True)
class _Column:
    image: torch.Tensor
    seconds: float
    gradient_evaluations: float = 0.0
    parameters: int = 0


def _classical(case: Case, regularizations: Mapping[str, float]) -> dict[str, _Column]:
    begin = time.perf_counter()
    image = case.problem.A.adjoint(case.problem.masked_kspace)
    columns = {"zero_filled": _Column(image[0].abs(), time.perf_counter() - begin)}
    for method, regularization in regularizations.items():
        begin = time.perf_counter()
        image = classical(method, regularization, case)
        columns[method] = _Column(image[0].abs(), time.perf_counter() - begin)
    return columns


def _predicted(case: Case, name: str, prediction: Prediction) -> tuple[dict[str, _Column], torch.Tensor | None]:
    position = case.slice_number
    scale = float(case.problem.scale)
    images, masks = prediction.reconstruction(case.volume)
    path, size = prediction.directory / case.volume, tuple(case.reference.shape[1:])
    require(
        images.ndim == 3 and images.shape[1:] == size and position < images.shape[0],
        f"{path}: reconstruction has shape {images.shape}; allowed with these data: "
        f"({position + 1} or more, {size[0]}, {size[1]})",
    )
    if masks is not None:
        same = np.array_equal(np.squeeze(masks[position]) != 0, case.problem.A.sampling_mask[0, 0].numpy() != 0)
        require(
            same,
            f"{path}: was predicted with another sampling mask; give `direct predict` the same --data-root and masking",
        )
    posterior = prediction.posterior(case.volume)
    if posterior is None:
        image = torch.from_numpy(images[position]) / scale
        return {name: _Column(image, prediction.seconds, parameters=prediction.parameters)}, None

    def column(kind: str, figures: str) -> _Column:
        image = torch.from_numpy(np.abs(posterior[kind][position])) / scale
        seconds = float(posterior[f"{figures}seconds"][position])
        # Methods without an energy evaluate no gradient.
        evaluations = posterior.get(f"{figures}gradient_evaluations")
        gradients = 0.0 if evaluations is None else float(evaluations[position])
        return _Column(image, seconds, gradients, prediction.parameters)

    if "image" in posterior:
        return {name: column("image", "")}, None
    columns = {f"{name}_map": column("map", "map_")}
    if "mean" not in posterior:
        return columns, None
    columns[f"{name}_mmse"] = column("mean", "posterior_")
    return columns, torch.from_numpy(posterior["std"][position]) / scale


@dataclass(frozen=True)
class Summary:
    """One method over all slices: means, and standard deviations over slices."""

    method: str
    psnr: float
    psnr_std: float
    ssim: float
    ssim_std: float
    nmse: float
    nmse_std: float
    seconds: float
    gradient_evaluations: float
    parameters: int
    slices: int


def summarize(rows: Sequence[Row]) -> list[Summary]:
    """Average the rows of every method, in the order they first appear."""
    methods = list(dict.fromkeys(row.method for row in rows))
    result = []
    for method in methods:
        mine = [row for row in rows if row.method == method]
        psnr, ssim, nmse = (np.array([getattr(row, key) for row in mine]) for key in ("psnr", "ssim", "nmse"))
        # An image without an error has an infinite PSNR, and infinite numbers have no standard deviation.
        with np.errstate(invalid="ignore"):
            psnr_std = psnr.std()
        result.append(
            Summary(
                method=method,
                psnr=psnr.mean(), psnr_std=psnr_std,
                ssim=ssim.mean(), ssim_std=ssim.std(),
                nmse=nmse.mean(), nmse_std=nmse.std(),
                seconds=float(np.mean([row.seconds for row in mine])),
                gradient_evaluations=float(np.mean([row.gradient_evaluations for row in mine])),
                parameters=mine[0].parameters,
                slices=len(mine),
            )
        )  # fmt: skip
    return result


def spread_over_error(pictures: Sequence[Picture], name: str) -> float:
    """Return the mean standard deviation of a prediction over the mean absolute error of its posterior mean."""
    spread = sum(float(picture.std[name].mean()) for picture in pictures)
    error = sum(float((picture.images[f"{name}_mmse"] - picture.reference).abs().mean()) for picture in pictures)
    return spread / error if error > 0 else float("nan")


def markdown_table(summaries: Sequence[Summary]) -> str:
    """Return the summaries as a table in Markdown; ± is the standard deviation over slices."""
    lines = [
        "| method | PSNR (dB) | SSIM | NMSE | seconds a slice | ∇E a slice | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.method} | {s.psnr:.2f} ± {s.psnr_std:.2f} | {s.ssim:.3f} ± {s.ssim_std:.3f} "
        f"| {s.nmse:.4f} ± {s.nmse_std:.4f} | {s.seconds:.3g} | {s.gradient_evaluations:.0f} | {s.parameters:,} |"
        for s in summaries
    ]
    return "\n".join(lines) + "\n"
