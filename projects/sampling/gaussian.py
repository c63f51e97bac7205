"""What samplers do where the posterior is known: Gaussian priors, the same measurement noise for all.

    python -m projects.sampling.gaussian projects/sampling/results

Writes alps.md: the variance of the authors' rule of ALPS against its recursion and against the posterior, and what the
preconditioned steps make of it; dps.md: mean and variance of DPS against the posterior, for several lengths of its
guidance and numbers of steps; shortcut.md: the error of noise that is shaped by the mask alone, without coils.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from direct_deepen import SenseOperator
from direct_deepen.inference import (
    annealed_langevin,
    diffusion_posterior_sampling,
    langevin,
    power_schedule,
    preconditioned_annealed_langevin,
    variance_exploding_schedule,
)
from direct_deepen.inference.metric import DataMetric
from direct_deepen.physics import normalize_sensitivity_map
from direct_deepen.physics.noise import complex_normal

SAMPLES = 4000
ETA = 0.1
LEVELS = (1.0, 0.1)
"""Ends of the noise levels of ALPS: from the size of the prior to that of the noise."""


@dataclass(frozen=True)
class Mask:
    """Ax = mx on one row of pixels: the first half is measured."""

    takes_leading_dimensions: ClassVar[bool] = True
    mask: torch.Tensor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return Ax."""
        return self.mask * image

    adjoint = forward
    normal = forward


VARIANCE = torch.tensor([[1.0, 0.04, 1.0, 0.04]], dtype=torch.float64)
"""Of the prior, pixel by pixel: measured wide and narrow, not measured wide and narrow."""

PIXELS = ("measured, V = 1", "measured, V = 0.04", "not measured, V = 1", "not measured, V = 0.04")
A = Mask(torch.tensor([[[1.0, 1.0, 0.0, 0.0]]], dtype=torch.float64))


class Smoothed:
    """E_σ of the prior N(0, V)."""

    def __init__(self, level: float) -> None:
        self.hessian = level**2 / (VARIANCE + level**2)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E_σ(x)."""
        return self.value_and_grad(image)[0]

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E_σ(x) and ∇E_σ(x)."""
        gradient = self.hessian * image
        return 0.5 * (image.conj() * gradient).real.sum(dim=(1, 2)), gradient


def denoiser(image: torch.Tensor, level: float) -> torch.Tensor:
    """Return the mean of images given the noisy one."""
    return VARIANCE / (VARIANCE + level**2) * image


def posterior(data: torch.Tensor, smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance per real component of the posterior, of the prior smoothed by a noise level."""
    variance = 1 / (A.mask[0] / ETA**2 + 1 / (VARIANCE + smoothing**2))
    return variance * data[0] / ETA**2, variance


def moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean, and variance per real component, of samples (sample, 1, 1, 4)."""
    mean = images.mean(dim=0)
    return mean[0], torch.view_as_real(images - mean).square().mean(dim=(0, -1))[0]


def ratios(images: torch.Tensor, data: torch.Tensor, smoothing: float) -> tuple[str, str]:
    """Return bias of the mean in standard deviations of the posterior, and variance over that of the posterior."""
    mean, variance = moments(images)
    exact_mean, exact_variance = posterior(data, smoothing)
    bias = ((mean - exact_mean).abs() / exact_variance.sqrt())[0]
    return (
        " | ".join(f"{value:.2f}" for value in bias.tolist()),
        " | ".join(f"{value:.2f}" for value in (variance / exact_variance)[0].tolist()),
    )


def table(rows: Sequence[tuple[str, int, torch.Tensor, float]], data: torch.Tensor) -> str:
    """Return a table of samplers, each with its number of network evaluations, samples and smoothing."""
    lines = []
    for title, column in (
        ("variance over that of the posterior", 1),
        ("bias of the mean, in its standard deviations", 0),
    ):
        lines += [f"{title}:", "", f"| sampler | evaluations | {' | '.join(PIXELS)} |", f"|---|---|{'---|' * 4}"]
        lines += [
            f"| {name} | {evaluations} | {ratios(images, data, smoothing)[column]} |"
            for name, evaluations, images, smoothing in rows
        ]
        lines.append("")
    error = (1 / SAMPLES) ** 0.5
    lines.append(f"{SAMPLES} samples: standard errors {error:.3f} of a variance ratio, {1.4 * error:.3f} of a bias.")
    return "\n".join(lines) + "\n"


def generator() -> torch.Generator:
    """Return a generator of one seed."""
    return torch.Generator().manual_seed(0)


def alps(data: torch.Tensor) -> str:
    """Tabulate the rule of the authors, and steps that have the posterior as their limit."""
    rows = []
    for count in (10, 50):
        levels = power_schedule(*LEVELS, count)
        images = annealed_langevin(
            A, data, Smoothed, noise_std=ETA, noise_levels=levels, num_samples=SAMPLES, max_images=SAMPLES,
            generator=generator(),
        ).images  # fmt: skip
        # The last level ends with a mean, so that the posterior itself is what it is to be compared with.
        rows.append((f"ALPS, {count} levels", 5 * count, images, 0.0))
    for name, metropolis, step_size, inner in (
        ("h = 0.5", False, 0.5, 5),
        ("h = 0.1", False, 0.1, 25),
        ("MALA", True, 0.5, 25),
    ):
        levels = power_schedule(LEVELS[0], 0.02, 10)
        images = preconditioned_annealed_langevin(
            A, data, Smoothed, noise_std=ETA, noise_levels=levels, num_samples=SAMPLES, max_images=SAMPLES,
            inner_steps=inner, step_size=step_size, metropolis=metropolis, generator=generator(),
        ).images  # fmt: skip
        rows.append((f"preconditioned, {name}", 10 * inner, images[:, 0] if images.ndim == 5 else images, levels[-1]))

    class Unsmoothed:
        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            gradient = ETA**2 / VARIANCE * image
            return 0.5 * (image.conj() * gradient).real.sum(dim=(1, 2)), gradient

    for steps in (50, 200):
        images = langevin(
            A, data, Unsmoothed(), noise_std=2**0.5 * ETA, num_steps=steps, num_samples=SAMPLES,
            preconditioner=0.05, metropolis=True,
            max_images=SAMPLES, generator=generator(),
        ).images  # fmt: skip
        rows.append((f"`langevin` in the metric of the data, MALA, {steps} steps", steps, images, 0.0))
    return table(rows, data)


def dps(data: torch.Tensor) -> str:
    """Tabulate guidance of several lengths."""
    rows = []
    for steps in (100, 1000):
        for guidance in (0.01, 0.1, 0.3, 1.0):
            images = diffusion_posterior_sampling(
                A, data, denoiser, noise_levels=variance_exploding_schedule(steps, 25.0), guidance=guidance,
                num_samples=SAMPLES, max_images=SAMPLES, generator=generator(),
            ).images  # fmt: skip
            rows.append((f"DPS, ζ = {guidance}", steps, images, 0.0))
    return table(rows, data)


def shortcut() -> str:
    """Tabulate the covariance of noise shaped by (m/η² + 1/σ²)^{-1/2} in k-space of one image, and the exact."""
    size, coils = 8, 6
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    angles = torch.arange(coils, dtype=torch.float64) * 2 * torch.pi / coils
    maps = torch.stack(
        [torch.exp(-((y - a.sin()) ** 2 + (x - a.cos()) ** 2) / 2 + 1j * (a + x * a.sin())) for a in angles]
    )
    mask = torch.rand(1, 1, size, size, generator=generator()) < 0.3
    mask[..., 3:5, 3:5] = True
    operator = SenseOperator(normalize_sensitivity_map(maps[None]), mask)
    basis = torch.eye(size**2, dtype=torch.complex128).reshape(-1, 1, size, size)
    normal = operator.normal(basis).reshape(size**2, -1).T
    fourier = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(basis, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    fourier = fourier.reshape(size**2, -1).T
    lines = [
        "| σ/η | variance over the exact one: mean | least pixel | largest pixel | relative error of the covariance |",
        "|---|---|---|---|---|",
    ]
    for ratio in (0.5, 1.0, 3.0, 10.0, 100.0):
        exact = torch.linalg.inv(normal + torch.eye(size**2) / ratio**2)
        gain = 1 / (mask.flatten().double() + 1 / ratio**2)
        approximate = fourier.conj().T @ (gain[:, None] * fourier)
        share = approximate.diagonal().real / exact.diagonal().real
        error = torch.linalg.norm(approximate - exact) / torch.linalg.norm(exact)
        lines.append(f"| {ratio:g} | {share.mean():.2f} | {share.min():.2f} | {share.max():.2f} | {error:.2f} |")
    noise = exact_noise_error(operator)
    lines += [
        "",
        f"Perturb and solve, as this package does: {noise:.3f} from {SAMPLES} draws at σ/η = 3, all sampling error.",
    ]
    return "\n".join(lines) + "\n"


def exact_noise_error(operator: SenseOperator) -> float:
    """Return the relative error of the covariance of drawn noise, which is sampling error alone."""
    pixels = operator.sensitivity_map.shape[-1] ** 2
    data = operator.forward(torch.zeros(1, 8, 8, dtype=torch.complex128))
    metric = DataMetric(operator, data, 1 / 9, 1e-8)
    like = torch.zeros(SAMPLES, 1, 8, 8, dtype=torch.complex128)
    noise = metric.solve(metric.noise(like, generator())).reshape(SAMPLES, pixels)
    basis = torch.eye(pixels, dtype=torch.complex128).reshape(-1, 1, 8, 8)
    exact = torch.linalg.inv(operator.normal(basis).reshape(pixels, -1).T + torch.eye(pixels) / 9)
    covariance = noise.T @ noise.conj() / (2 * SAMPLES)
    return float(torch.linalg.norm(covariance - exact) / torch.linalg.norm(exact))


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    results.mkdir(parents=True, exist_ok=True)
    truth = VARIANCE.sqrt() * complex_normal(
        (1, 1, 4), generator=torch.Generator().manual_seed(5), dtype=torch.complex128
    )
    noise = complex_normal((1, 1, 4), generator=torch.Generator().manual_seed(6), dtype=torch.complex128)
    data = A.forward(truth + ETA * noise)
    parts: dict[str, Callable[[], str]] = {"alps": lambda: alps(data), "dps": lambda: dps(data), "shortcut": shortcut}
    for name, part in parts.items():
        (results / f"{name}.md").write_text(part(), encoding="utf-8")


if __name__ == "__main__":
    main()
