"""The one noise convention: standard deviations are per real component."""

import math

import pytest
import torch

from direct_deepen.physics import complex_normal

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
