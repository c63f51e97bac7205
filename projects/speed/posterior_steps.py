"""What a posterior costs in evaluations of ∇E, beside a long chain: results/posterior_steps.csv.

python -m projects.speed.posterior_steps --output projects/speed/results

Weights that come with the package, on phantoms that training never saw. The judge is chains of five hundred steps; the
rows are what shorter ones say of the same slice: the mean, the standard deviation, that of 8×8 blocks, and whether the
truth's are in their intervals.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import avg_pool2d

from direct_deepen import Chains, LangevinStep, langevin, load_pretrained, mm_map
from direct_deepen.data.cases import Case
from direct_deepen.evaluation.metrics import quality
from direct_deepen.inference import FastLangevin
from direct_deepen.priors.energy import DifferentiableEnergy
from projects.calibration.run import MASKS, write_configuration
from projects.speed.phantoms import CONFIGURATION, NOISE_STD, WEIGHTS, phantom_cases, phantom_parser

BLOCK = 8
NORMAL = 1.645
"""Half of a 90 % interval, in standard deviations."""

OBJECT = 0.1
"""Share of the largest intensity, above which the mean of a block of the truth is of the object."""


@dataclass(frozen=True)
class Way:
    """Chains, and how they step."""

    chains: Chains
    step: LangevinStep


def ways() -> dict[str, Way]:
    """Return what is compared, the judge first."""
    fast = FastLangevin()
    chains, step = Chains(fast.num_samples, fast.num_steps, fast.keep, antithetic=True), fast.step
    still = replace(step, momentum=0.0)
    return {
        "judge": Way(Chains(16, 500, 80), step),
        "default": Way(Chains(16, 100, 10), LangevinStep()),
        "default, averaged noise": Way(Chains(16, 100, 10), LangevinStep(averaged_noise=True)),
        "fast, paper's metric": Way(chains, replace(step, preconditioner=None)),
        "fast, no momentum": Way(chains, still),
        "fast, momentum 0.6": Way(chains, replace(step, momentum=0.6)),
        "fast, momentum 0.9": Way(chains, replace(step, momentum=0.9)),
        "fast": Way(chains, step),
        "fast, 20 steps": Way(replace(chains, num_steps=20), step),
        "fast, 80 steps": Way(replace(chains, num_steps=80), step),
    }


@dataclass(frozen=True)
class Summary:
    """What is read off samples, u in phase with the truth."""

    psnr: float
    std: torch.Tensor
    block_std: torch.Tensor
    block_coverage: float


def summary(case: Case, images: torch.Tensor) -> Summary:
    """Return the summary of samples (sample, 1, height, width)."""
    truth = case.reference
    magnitude = truth.abs()
    values = (images * truth.conj() / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)).real
    blocks, expected = avg_pool2d(values, BLOCK), avg_pool2d(magnitude, BLOCK)
    inside = expected > OBJECT * magnitude.max()
    spread = blocks.std(dim=0, correction=0)
    covered = (blocks.mean(dim=0) - expected).abs() <= NORMAL * spread
    return Summary(
        psnr=quality(images.mean(dim=0)[0], truth[0]).psnr,
        std=values.std(dim=0, correction=0),
        block_std=spread[inside],
        block_coverage=float(covered[inside].double().mean()),
    )


def rows_of(case: Case, mask: str, energy: DifferentiableEnergy) -> list[dict[str, float | str]]:
    """Return what every way says of a slice."""
    A, b = case.problem.A, case.problem.masked_kspace
    start = mm_map(A, b, energy).image
    rows, judge = list[dict[str, float | str]](), None
    for name, way in ways().items():
        samples = langevin(
            A, b, energy, noise_std=NOISE_STD, init=start, generator=torch.Generator().manual_seed(0),
            chains=way.chains, step=way.step, progress=True,
        )  # fmt: skip
        found = summary(case, samples.images)
        judge = judge or found
        row = {"mask": mask, "case": f"{case.volume}#{case.slice_number}", "way": name}
        rows.append(
            row
            | {
                "evaluations": samples.gradient_evaluations,
                "psnr": found.psnr,
                "psnr_change": found.psnr - judge.psnr,
                "std_ratio": float(found.std.mean() / judge.std.mean()),
                "block_std_ratio": float(found.block_std.mean() / judge.block_std.mean()),
                "block_coverage": found.block_coverage,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Sample every slice every way; print the means."""
    parser = phantom_parser(__doc__.splitlines()[0], data=Path("runs/speed/posterior"), slices=1)
    parser.set_defaults(volumes=1)
    parser.add_argument("--masks", nargs="+", default=["2d4x", "1d4x"])
    arguments = parser.parse_args()
    energy = load_pretrained(WEIGHTS)
    rows = []
    for mask in arguments.masks:
        configuration = arguments.data.parent / f"{mask}.yaml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        write_configuration(CONFIGURATION, MASKS / f"{mask}.yaml", [], configuration)
        for case in phantom_cases(arguments, configuration):
            rows += rows_of(case, mask, energy)
    table = pd.DataFrame(rows)
    table.to_csv(arguments.output / "posterior_steps.csv", index=False, float_format="%.4g")
    means = table.drop(columns="case").groupby(["mask", "way"], sort=False).mean()
    print(means.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
