"""An energy over (time, row, column), the same energy frame by frame, and their training."""

import math
from collections.abc import Iterator, Sequence

import torch

from direct_deepen.objectives import denoising_score_matching_loss
from direct_deepen.priors import DifferentiableEnergy, QuadraticEnergy
from direct_deepen.progress import progress_bar

LAYERS = 4
HIDDEN_CHANNELS = {2: 48, 3: 24}
"""By the number of dimensions: 43,000 weights of two, and 34,000 of three."""

TEMPERATURE = 0.25
"""κ = 1/(2c²) with c = √2, that of the package's energies: ∇E is κ times the noise that images have."""

LARGEST_NOISE, IMAGE_ENERGY_WEIGHT, LEARNING_RATE = 0.1, 0.3, 2e-3
CROP = 64
"""Rows and columns of what an update sees."""


def new_energy(dimensions: int, seed: int) -> QuadraticEnergy:
    """Return an energy with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return QuadraticEnergy(
            hidden_channels=HIDDEN_CHANNELS[dimensions], num_layers=LAYERS, weight=TEMPERATURE, dimensions=dimensions
        )


class FrameByFrame:
    """E(x) = Σ_t E(x_t) of series (batch, frame, row, column), by an energy of two dimensions."""

    def __init__(self, energy: DifferentiableEnergy) -> None:
        self.energy = energy

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, of the shape of the image."""
        value, gradient = self.energy.value_and_grad(image.flatten(0, 1))
        return value.unflatten(0, image.shape[:2]).sum(dim=1), gradient.reshape(image.shape)


def crops(series: Sequence[torch.Tensor], generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield a piece of a random series, (1, frame, CROP, CROP), flipped, begun anywhere, with a phase of its own."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    while True:
        piece = series[draw(len(series))]
        down, right = (draw(length - CROP + 1) for length in piece.shape[1:])
        piece = piece[:, down : down + CROP, right : right + CROP].roll(draw(len(piece)), dims=0)
        piece = piece.flip([axis for axis in range(3) if draw(2) == 1])
        turn = 2 * math.pi * torch.rand((), generator=generator)
        yield (piece * torch.polar(torch.ones(()), turn))[None]


def trained(dimensions: int, series: Sequence[torch.Tensor], *, num_updates: int, seed: int = 0) -> QuadraticEnergy:
    """Train by score matching on series (frame, row, column) in scaled intensities; both kinds see the same pieces."""
    energy, generator = new_energy(dimensions, seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(energy.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    noise = torch.Generator().manual_seed(seed + 1)
    bar = progress_bar(range(num_updates), name=f"{dimensions}D", unit="update")
    for _, piece in zip(bar, crops(series, generator), strict=False):
        loss = denoising_score_matching_loss(
            energy, piece if dimensions == 3 else piece[0], max_noise_std=LARGEST_NOISE, generator=noise,
            scale=TEMPERATURE, energy_weight=IMAGE_ENERGY_WEIGHT,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(energy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3g}")
    return energy
