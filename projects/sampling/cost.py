"""What a sample costs: with the networks and images of the papers, and with those of the comparison on phantoms.

    python -m projects.sampling.cost projects/sampling/results

Writes cost.md and cost_phantom.md. A step of every sampler is timed in turns in one process, and its floating-point
operations are counted; a sample is as many steps as the papers take. What a step costs does not depend on the weights:
these are untrained.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from direct_deepen import QuadraticEnergy, SenseOperator, langevin
from direct_deepen.inference import (
    Samples,
    annealed_langevin,
    diffusion_posterior_sampling,
    variance_exploding_schedule,
)
from direct_deepen.physics import normalize_sensitivity_map
from direct_deepen.physics.noise import complex_normal
from direct_deepen.priors import DiffusionDenoiser, NoiseConditionalEnergy

ETA = 0.007


@dataclass(frozen=True)
class Scale:
    """Sizes of images and networks.

    Attributes
    ----------
    size, coils
        Of the images.
    energy_channels
        Width of DEEPEN's five layers.
    diffusion, student
        Widths and blocks of the networks of DPS and ALPS.
    repetitions, steps
        Rounds of the timing, and evaluations in each.
    """

    size: int
    coils: int
    energy_channels: int
    diffusion: tuple[tuple[int, ...], int]
    student: tuple[tuple[int, ...], int]
    repetitions: int
    steps: int


SCALES = {
    "cost": Scale(320, 12, 64, ((64, 128, 256, 512), 4), ((32, 64, 128), 2), 3, 2),
    "cost_phantom": Scale(64, 8, 32, ((24, 48, 96), 1), ((16, 32, 64), 1), 7, 10),
}


@dataclass(frozen=True)
class Sampler:
    """A sampler.

    Attributes
    ----------
    name
        Its name.
    network
        What it evaluates.
    evaluations
        Evaluations of a sample, by the paper.
    run
        Takes some steps; what it returns says how many evaluations they were.
    """

    name: str
    network: torch.nn.Module
    evaluations: tuple[int, ...]
    run: Callable[[], Samples]


def problem(scale: Scale, generator: torch.Generator) -> tuple[SenseOperator, torch.Tensor]:
    """Return a forward model sampled 4 times, and data."""
    shape = (1, scale.size, scale.size)
    maps = normalize_sensitivity_map(complex_normal((1, scale.coils, *shape[1:]), generator=generator))
    A = SenseOperator(maps, torch.rand(1, *shape, generator=generator) < 0.25)
    image = complex_normal(shape, generator=generator).abs().to(torch.complex64) / 3
    noise = complex_normal((1, scale.coils, *shape[1:]), generator=generator)
    return A, A.forward(image) + ETA * A.sampling_mask * noise


def samplers(scale: Scale) -> list[Sampler]:
    """Return all three."""
    generator = torch.Generator().manual_seed(0)
    energy = QuadraticEnergy(hidden_channels=scale.energy_channels, num_layers=5).eval()
    diffusion = DiffusionDenoiser(channels=scale.diffusion[0], num_blocks=scale.diffusion[1]).eval()
    student = NoiseConditionalEnergy(channels=scale.student[0], num_blocks=scale.student[1]).eval()
    A, b = problem(scale, generator)
    start = A.adjoint(b)

    def deepen() -> Samples:
        steps = scale.steps
        return langevin(A, b, energy, noise_std=2**0.5 * ETA, num_steps=steps, init=start, generator=generator)

    def dps() -> Samples:
        # Short of the end, where nothing is added.
        levels = variance_exploding_schedule(1000, 25.0)[-scale.steps - 1 : -1]
        return diffusion_posterior_sampling(A, b, diffusion, noise_levels=levels, guidance=0.1, generator=generator)

    def alps() -> Samples:
        return annealed_langevin(
            A, b, student.at, noise_std=ETA, noise_levels=[0.1], inner_steps=scale.steps, generator=generator
        )

    return [
        Sampler("DEEPEN", energy, (100,), deepen),
        Sampler("ALPS", student, (50, 250), alps),
        Sampler("DPS", diffusion, (1000,), dps),
    ]


class OperationCounter(TorchDispatchMode):
    """Counts floating-point operations by PyTorch's own formulas; its FlopCounterMode refuses torch.autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def operations(sampler: Sampler) -> float:
    """Return the floating-point operations of the convolutions and matrix products of an evaluation."""
    with OperationCounter() as counter:
        samples = sampler.run()
    return counter.total / samples.gradient_evaluations


def table(scale: Scale) -> str:
    """Time the samplers in turns and return the table."""
    found = samplers(scale)
    counted = [operations(sampler) for sampler in found]
    seconds: list[list[float]] = [[] for _ in found]
    for _ in range(scale.repetitions):
        for sampler, times in zip(found, seconds, strict=True):
            begin = time.perf_counter()
            samples = sampler.run()
            times.append((time.perf_counter() - begin) / samples.gradient_evaluations)
    lines = [
        "| sampler | weights | GFLOP an evaluation | seconds an evaluation | evaluations a sample | TFLOP a sample "
        "| seconds a sample | over DEEPEN |",
        "|---|---|---|---|---|---|---|---|",
    ]
    reference = found[0].evaluations[0] * statistics.median(seconds[0])
    for sampler, flops, times in zip(found, counted, seconds, strict=True):
        weights = sum(tensor.numel() for tensor in sampler.network.parameters())
        each = statistics.median(times)
        for evaluations in sampler.evaluations:
            lines.append(
                f"| {sampler.name} | {weights:,} | {flops / 1e9:.3g} | {each:.3g} | {evaluations} "
                f"| {evaluations * flops / 1e12:.3g} | {evaluations * each:.3g} "
                f"| {evaluations * each / reference:.2f} |"
            )
    note = (
        f"{scale.size}×{scale.size}, {scale.coils} coils; {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}; medians of {scale.repetitions} rounds of {scale.steps} steps, in turns. "
        "Seconds a sample are those of an evaluation times their number; operations are of convolutions and matrix "
        "products."
    )
    return "\n".join([*lines, "", note]) + "\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    results.mkdir(parents=True, exist_ok=True)
    for name, scale in SCALES.items():
        (results / f"{name}.md").write_text(table(scale), encoding="utf-8")


if __name__ == "__main__":
    main()
