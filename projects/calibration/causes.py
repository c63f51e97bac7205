"""Why 90 % intervals do not cover 90 %: one thing changed at a time, on the validation data.

    direct-deepen calibrate runs/calibration/deepen ...            # see README.md; its samples are used again
    python projects/calibration/causes.py runs/calibration/deepen --cfg CONFIG --checkpoint CKPT --data-root VALIDATION

Writes causes.md: coverage by brightness of the reference, by number and kind of samples, and by the metric of the
chains (sampled anew, every fourth slice).
"""

import argparse
from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path

import torch

from direct_deepen.data.cases import inference_dataset
from direct_deepen.engines.trained import load_system, load_trained
from direct_deepen.evaluation.calibration_study import SampledSlice, require_sampler, sampled_slices
from direct_deepen.inference import Langevin
from direct_deepen.posterior.calibration import attainable_coverage, containing_level, object_pixels, with_data_noise
from direct_deepen.posterior.posterior import Posterior

LEVEL = 0.9
SHARES = (0.0, 0.05, 0.2, 0.4, 0.6, 1.0)
"""Bounds of classes of brightness, as shares of the largest intensity of the reference."""
PRECONDITIONER = 0.3


def by_brightness(slices: Sequence[SampledSlice], data_noise_std: float) -> list[str]:
    """Return coverage against the reference without and with data noise, and moments, in classes of brightness."""
    lines = [
        "| brightness | pixels (%) | covered (%) | with data noise (%) | reference | posterior mean of the magnitude "
        "| standard deviation | error (RMS) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    generator = torch.Generator().manual_seed(0)
    noisy = [with_data_noise(item.reference, data_noise_std, generator) for item in slices]
    for low, high in pairwise(SHARES):
        columns = []
        for item, other in zip(slices, noisy, strict=True):
            share = item.reference / item.reference.max()
            pixels = (share > low) & (share <= high)
            magnitude = item.posterior.images.abs().mean(dim=0)
            error = item.posterior.mean.abs() - item.reference
            columns.append(
                torch.stack(
                    [
                        100 * pixels.double().mean(),
                        100 * (containing_level(item.posterior, item.reference)[pixels] <= LEVEL).double().mean(),
                        100 * (containing_level(item.posterior, other)[pixels] <= LEVEL).double().mean(),
                        item.reference[pixels].double().mean(),
                        magnitude[pixels].double().mean(),
                        item.posterior.std[pixels].double().mean(),
                        error[pixels].double().square().mean().sqrt(),
                    ]
                )
            )
        figures = torch.stack(columns).nanmean(dim=0).tolist()
        cells = [f"{value:.1f}" for value in figures[:3]] + [f"{value:.4f}" for value in figures[3:]]
        lines.append(f"| {low:.0%} to {high:.0%} | " + " | ".join(cells) + " |")
    return lines


def by_samples(slices: Sequence[SampledSlice]) -> list[str]:
    """Return coverage inside the object by which of the samples are used."""
    lines = ["| samples | number | covered (%) | exact independent samples (%) |", "|---|---|---|---|"]
    for label, every, count in (
        ("the last state of 4 chains", True, 4),
        ("the last state of 8 chains", True, 8),
        ("the last state of every chain", True, None),
        ("four states of 4 chains", False, 4),
        ("all", False, None),
    ):
        shares, number = [], 0
        for item in slices:
            diagnostics = item.posterior.diagnostics
            chains = item.posterior.images.unflatten(0, (diagnostics.num_chains, diagnostics.keep))[:count]
            images = chains[:, -1] if every else chains.flatten(0, 1)
            number = len(images)
            part = Posterior(images=images, diagnostics=diagnostics)
            shares.append(covered(part, item.reference))
        mean = 100 * sum(shares) / len(shares)
        lines.append(f"| {label} | {number} | {mean:.1f} | {100 * attainable_coverage(LEVEL, number):.1f} |")
    return lines


def covered(posterior: Posterior, reference: torch.Tensor) -> float:
    """Return the share of the pixels inside the object that 90 % intervals cover."""
    return float((containing_level(posterior, reference)[object_pixels(reference)] <= LEVEL).double().mean())


def by_metric(metrics: dict[str, list[SampledSlice]]) -> list[str]:
    """Return coverage, spread and error inside the object by the metric that chains step in, on the same slices."""
    lines = [
        "| chains | covered (%) | standard deviation (RMS) | error of the mean (RMS) | bias of the mean |",
        "|---|---|---|---|---|",
    ]
    for label, slices in metrics.items():
        rows = []
        for item in slices:
            pixels = object_pixels(item.reference)
            error = (item.posterior.mean.abs() - item.reference)[pixels].double()
            spread = item.posterior.std[pixels].double().square().mean().sqrt()
            rows.append([covered(item.posterior, item.reference), spread, error.square().mean().sqrt(), error.mean()])
        share, spread, rms, bias = torch.tensor(rows).mean(dim=0).tolist()
        lines.append(f"| {label} | {100 * share:.1f} | {spread:.4f} | {rms:.4f} | {bias:+.4f} |")
    return lines


def main() -> None:
    """Sample what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of `direct-deepen calibrate`")
    parser.add_argument("--cfg", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True, help="the validation data of that command")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    system, energy = load_system(arguments.cfg), load_trained(arguments.checkpoint, arguments.cfg)
    inference = require_sampler(system.inference)
    # Of the samplers only this one steps in a metric.
    assert isinstance(inference, Langevin)
    dataset = inference_dataset(arguments.cfg, arguments.data_root)

    def sampled(inference: Langevin, folder: Path, limit: int | None) -> list[SampledSlice]:
        found = sampled_slices(
            dataset, energy, inference, coil_maps=system.settings.coil_maps,
            seed=arguments.seed, folder=folder, limit=limit, device="cpu", label=folder.name,
        )  # fmt: skip
        return list(found)

    slices = sampled(inference, arguments.output / "samples" / "validation", None)
    other = copy(inference)
    other.preconditioner = PRECONDITIONER
    preconditioned = sampled(other, arguments.output / "samples" / "preconditioned", max(1, len(slices) // 4))
    cases = {item.case for item in preconditioned}
    data_noise_std = system.objective.data_noise_std
    text = [
        "### By brightness of the reference", "", *by_brightness(slices, data_noise_std), "",
        "### By number of samples, inside the object", "", *by_samples(slices), "",
        "### By the metric of the chains, inside the object", "",
        *by_metric(
            {
                "paper's steps": [item for item in slices if item.case in cases],
                f"in the metric of the data (`preconditioner: {PRECONDITIONER}`)": preconditioned,
            }
        ),
        "", f"{len(slices)} validation slices, the last table {len(preconditioned)} of them; means over slices, "
        "in scaled intensities.", "",
    ]  # fmt: skip
    (arguments.output / "causes.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
