"""The one noise convention: standard deviations are per real component."""

import math

import pytest
import torch

from direct_deepen.physics import complex_normal
from direct_deepen.physics.noise import ChainGenerators

COUNT = 200_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_every_real_component_has_unit_standard_deviation(dtype):
    noise = complex_normal((COUNT,), generator=generator(0), dtype=dtype)
    for component in (noise.real, noise.imag):
        assert abs(float(component.double().mean())) <= 3 / math.sqrt(COUNT)  # 3 standard errors of a mean
        # 3 standard errors of a standard deviation, 1/√(2n).
        assert abs(float(component.double().std()) - 1) <= 3 / math.sqrt(2 * COUNT)
    # E|z|² = 2; |z|² has standard deviation 2.
    assert abs(float(noise.abs().double().square().mean()) - 2) <= 3 * 2 / math.sqrt(COUNT)


def test_real_and_imaginary_part_are_independent():
    noise = complex_normal((COUNT,), generator=generator(1), dtype=torch.complex128)
    # 3 standard errors of the mean of a product of two independent unit normals, which has unit variance.
    assert abs(float((noise.real * noise.imag).mean())) <= 3 / math.sqrt(COUNT)


@pytest.mark.usefixtures("global_generators_untouched")
def test_the_generator_alone_decides():
    first = complex_normal((3, 4), generator=generator(0))
    assert torch.equal(complex_normal((3, 4), generator=generator(0)), first)
    assert not torch.equal(complex_normal((3, 4), generator=generator(1)), first)
    shared = generator(0)
    assert torch.equal(complex_normal((3, 4), generator=shared), first)
    assert not torch.equal(complex_normal((3, 4), generator=shared), first)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_shape_and_precision_are_the_ones_asked_for(dtype):
    noise = complex_normal(torch.Size([2, 3, 4]), generator=generator(0), dtype=dtype)
    assert noise.shape == (2, 3, 4)
    assert noise.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 5), (8, 8)])  # generators fill multiples of 16 numbers otherwise than the rest
def test_noise_of_an_image_of_a_chain_is_the_same_bit_for_bit_whatever_runs_beside_it(shape, dtype):
    def drawn(num_chains, batch, chains):
        generators = ChainGenerators.from_one(generator(5), num_chains, batch)[chains]
        size = (len(range(num_chains)[chains]), batch, *shape)
        return [complex_normal(size, generator=generators, dtype=dtype) for _ in range(2)], generators.uniform()

    (first, second), uniform = drawn(6, 3, slice(0, 6))
    for num_chains, batch, chains in ((1, 1, slice(0, 1)), (6, 3, slice(4, 6)), (5, 2, slice(1, 2))):
        (noise, after), numbers = drawn(num_chains, batch, chains)
        assert torch.equal(noise, first[chains, :batch])
        assert torch.equal(after, second[chains, :batch])
        assert torch.equal(numbers, uniform[chains, :batch])
    assert len(uniform.unique()) == 18


def test_chains_have_independent_standard_normal_noise():
    noise = complex_normal((2000, 1, 4, 4), generator=ChainGenerators.from_one(generator(6), 2000, 1))
    numbers = torch.view_as_real(noise).flatten(1).double()
    # 64,000 numbers: standard errors of 0.004 and 0.0056; of a correlation of two of the 32 columns 0.022.
    assert abs(float(numbers.mean())) < 0.016
    assert abs(float(numbers.var()) - 1) < 0.023
    assert float((torch.corrcoef(numbers.T) - torch.eye(32)).abs().max()) < 0.1
    # Neighbouring chains.
    assert abs(float((numbers[1:] * numbers[:-1]).mean())) < 0.016
