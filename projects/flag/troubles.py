"""Troubles of stated strength: what is wrong with k-space, with coil maps, or with the noise level that is given.

Every trouble is of a slice whose k-space is fully sampled; it is undersampled, and coil maps are estimated, afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from direct_deepen.physics import complex_normal
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.sense_operator import normalize_sensitivity_map

GOOD = "good"


@dataclass(frozen=True)
class Slice:
    """A slice and all that made it."""

    volume: str
    kspace: torch.Tensor
    """With noise, fully sampled, complex (coil, height, width)."""
    image: torch.Tensor
    """Without noise, complex (height, width), in the unit of k-space."""
    sensitivity_map: torch.Tensor
    """Complex (coil, height, width)."""
    noise_std: float
    """η per real component, in the unit of k-space."""


@dataclass(frozen=True)
class Given:
    """What a reconstruction gets besides data: what is wrong with it."""

    slice: Slice
    map_error: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Of estimated coil maps."""
    noise_factor: float = 1.0
    """Of the noise level that is given, over that of the data."""


type Trouble = Callable[[Slice, Slice, torch.Generator], Given]
"""From a slice and one of another volume."""

# ---- Coil maps


def smooth_errors(strength: float) -> Trouble:
    """Multiply every coil map by 1 + f, f complex, smooth, and of this root mean square; then normalise."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        size = torch.Size(slice_.kspace.shape)
        kspace = torch.zeros(size, dtype=torch.complex64)
        row, column = size[-2] // 2, size[-1] // 2
        kspace[:, row - 1 : row + 2, column - 1 : column + 2] = complex_normal((size[0], 3, 3), generator=generator)
        errors = ifft2(kspace)
        errors = strength * errors / errors.abs().square().mean().sqrt()
        return Given(slice_, lambda maps: normalize_sensitivity_map((maps * (1 + errors))[None])[0])

    return trouble


def maps_of_another(slice_: Slice, other: Slice, _: torch.Generator) -> Given:
    """Give the coil maps of another volume."""
    maps = other.sensitivity_map[: len(slice_.kspace)]
    return Given(slice_, lambda _: normalize_sensitivity_map(maps[None])[0])


# ---- K-space


def moved(kspace: torch.Tensor, pixels: float) -> torch.Tensor:
    """Return the k-space of an object that is shifted by so many pixels, down and to the right."""
    phase = sum(
        (torch.arange(size) - size // 2).reshape(shape) * (pixels / size)
        for size, shape in zip(kspace.shape[-2:], ((-1, 1), (1, -1)), strict=True)
    )
    return kspace * torch.exp(-2j * torch.pi * phase)


def motion_in_segments(pixels: float) -> Trouble:
    """Move the object in every second segment of four neighbouring lines, as interleaved acquisitions have it."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        columns = torch.arange(slice_.kspace.shape[-1])
        late = columns // 4 % 2 == 1
        return Given(replace(slice_, kspace=torch.where(late, moved(slice_.kspace, pixels), slice_.kspace)))

    return trouble


def motion_once(pixels: float) -> Trouble:
    """Move the object once, after 65 % of lines that are measured from left to right."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        width = slice_.kspace.shape[-1]
        late = torch.arange(width) >= 0.65 * width
        return Given(replace(slice_, kspace=torch.where(late, moved(slice_.kspace, pixels), slice_.kspace)))

    return trouble


def spike(strength: float) -> Trouble:
    """Add a number of this magnitude, in η, and of a phase by coil, to one sample outside of the centre."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        coils, height, width = slice_.kspace.shape
        # `run` sees to it that the place is sampled.
        angle = 2 * torch.pi * torch.rand(coils, generator=generator)
        kspace = slice_.kspace.clone()
        row, column = spike_place(height, width)
        kspace[:, row, column] += strength * slice_.noise_std * torch.polar(torch.ones(coils), angle)
        return Given(replace(slice_, kspace=kspace))

    return trouble


def spike_place(height: int, width: int) -> tuple[int, int]:
    """Return the place of the sample: up and to the left, by an eighth of either side."""
    return height // 2 - height // 8, width // 2 - width // 8


def off_centre(samples: int) -> Trouble:
    """Shift k-space by so many samples along rows and columns."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        return Given(replace(slice_, kspace=slice_.kspace.roll((samples, samples), dims=(-2, -1))))

    return trouble


# ---- Objects


def anatomy(draw: Callable[[torch.Generator, int, int], torch.Tensor]) -> Trouble:
    """Put another object in the place of the head: real, of unit maximum, scaled to the norm of the head's image."""

    def trouble(slice_: Slice, _: Slice, generator: torch.Generator) -> Given:
        image = draw(generator, *slice_.image.shape)
        image = image * (slice_.image.norm() / image.norm())
        # It has the smooth phase and the noise of the head.
        noise = slice_.kspace - fft2(slice_.sensitivity_map * slice_.image)
        kspace = fft2(slice_.sensitivity_map * image.to(torch.complex64)) + noise
        return Given(replace(slice_, kspace=kspace, image=image.to(torch.complex64)))

    return trouble


def bricks(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    """Return a wall: rows of bricks of random brightness in dark mortar, within a round field."""
    course, length = max(4, height // 14), max(6, width // 8)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    number = rows // course
    shifted = columns + number % 2 * (length // 2)
    brightness = 0.3 + 0.7 * torch.rand(height // course + 1, (width + length) // length + 1, generator=generator)
    wall = brightness[number, shifted // length]
    wall = wall * ((rows % course > 0) & (shifted % length > 0))
    return wall * _disc(height, width)


def discs(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    """Return forty bright discs of several sizes in a grey one: no skull, no tissue."""
    rows, columns = _axes(height, width)
    image = 0.4 * _disc(height, width)
    for _ in range(40):
        row, column = (1.2 * torch.rand(2, generator=generator) - 0.6).tolist()
        radius, brightness = (torch.rand(2, generator=generator) * torch.tensor([0.12, 1.0])).tolist()
        image = torch.where((rows - row) ** 2 + (columns - column) ** 2 < (0.03 + radius) ** 2, brightness, image)
    return image


def _axes(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]


def _disc(height: int, width: int) -> torch.Tensor:
    rows, columns = _axes(height, width)
    return ((rows**2 + columns**2) < 0.8**2).float()


# ---- The noise level


def noise_level(factor: float) -> Trouble:
    """Give a noise level that is so many times that of the data."""
    return lambda slice_, _, generator: Given(slice_, noise_factor=factor)


TROUBLES: Mapping[str, Trouble] = {
    "maps, smooth errors of 10 %": smooth_errors(0.1),
    "maps of another head": maps_of_another,
    "motion in segments, 1 pixel": motion_in_segments(1),
    "motion in segments, 4 pixels": motion_in_segments(4),
    "motion once, 4 pixels": motion_once(4),
    "discs for a head": anatomy(discs),
    "bricks for a head": anatomy(bricks),
    "noise given as half": noise_level(0.5),
    "noise given as double": noise_level(2.0),
    "spike of 100 η": spike(100),
    "spike of 1000 η": spike(1000),
    "centre off by 1 sample": off_centre(1),
    "centre off by 4 samples": off_centre(4),
}
