"""The one noise convention of this package.

A complex Gaussian ``z`` has *standard deviation per real component*: ``z = σ (u + i v)`` with ``u, v ~ N(0, 1)``
independent, hence ``E|z|² = 2σ²``. Every noise level of the package (measurement noise η, Langevin noise ε, data
noise, denoising levels) is given this way. Some published codes state ``E|z|² = σ²`` instead: their σ is √2 ours.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class ChainGenerators:
    """A generator for every image of every chain: what one draws depends neither on the others nor on how they run."""

    generators: Sequence[Sequence[torch.Generator]]
    """By chain and image of the batch."""
    signs: Sequence[int]
    """By chain: 1, or -1 for one whose normal numbers are negated."""

    @classmethod
    def from_one(cls, generator: torch.Generator, num_chains: int, batch: int, *, antithetic: bool = False) -> Self:
        """Return generators seeded by one draw of a generator, the number of the chain, and that of the image.

        ``antithetic``: every second chain draws what the one before draws, and negates it where it is normal.
        """
        device = generator.device
        drawn = int(torch.randint(2**62, (), generator=generator, device=device))
        mirrored = [antithetic and chain % 2 == 1 for chain in range(num_chains)]

        def seeded(chain: int, image: int) -> torch.Generator:
            digest = hashlib.sha256(f"{drawn}/{chain - mirrored[chain]}/{image}".encode()).digest()
            return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))

        generators = [[seeded(chain, image) for image in range(batch)] for chain in range(num_chains)]
        return cls(generators, [-1 if second else 1 for second in mirrored])

    def __getitem__(self, chains: slice) -> Self:
        return type(self)(self.generators[chains], self.signs[chains])

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Draw real standard normal numbers of a shape (chain, batch, ...), on the device of the generators."""
        numbers = self._filled(torch.Tensor.normal_, shape, dtype)
        for chain, sign in zip(numbers, self.signs, strict=True):
            if sign < 0:
                chain.neg_()
        return numbers

    def uniform(self) -> torch.Tensor:
        """Draw a number between zero and one for every image of every chain, float64 (chain, batch)."""
        return self._filled(torch.Tensor.uniform_, (len(self.generators), len(self.generators[0])), torch.float64)

    def _filled(self, fill: Callable[..., torch.Tensor], shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        numbers = torch.empty(*shape, dtype=dtype, device=self.generators[0][0].device)
        generators = [generator for chain in self.generators for generator in chain]
        for image, generator in zip(numbers.flatten(0, 1), generators, strict=True):
            fill(image, generator=generator)
        return numbers


def complex_normal(
    shape: Sequence[int],
    *,
    generator: torch.Generator | ChainGenerators,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw complex Gaussian noise of unit standard deviation per real component, ``E|z|² = 2``.

    The generator draws on its own device: one seed gives one sequence of numbers whatever the ``device`` of the result.
    ``dtype`` is ``complex64`` or ``complex128``. With generators of chains ``shape`` is (chain, batch, ...).
    """
    real_dtype = torch.float64 if dtype == torch.complex128 else torch.float32
    if isinstance(generator, ChainGenerators):
        parts = generator.normal((*shape, 2), real_dtype)
    else:
        parts = torch.randn(*shape, 2, generator=generator, dtype=real_dtype, device=generator.device)
    return torch.view_as_complex(parts).to(device)


def complex_normal_like(tensor: torch.Tensor, *, generator: torch.Generator | ChainGenerators) -> torch.Tensor:
    """Draw :func:`complex_normal` noise of the shape, dtype and device of a complex tensor."""
    return complex_normal(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
