"""Convolutions of 16 bits: what rounding does to ∇E, and no more."""

import pytest
import torch

from direct_deepen import DeepenError, SenseOperator, langevin
from direct_deepen.inference.cost import inner_product
from direct_deepen.physics import complex_normal
from direct_deepen.priors import ConvEnergy, QuadraticEnergy, ReducedPrecision


def built(kind, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(hidden_channels=20, num_layers=4, **options)


def images(*shape):
    return complex_normal(shape, generator=torch.Generator().manual_seed(1))


KINDS = [
    (QuadraticEnergy, {"activation": "elu"}),
    (QuadraticEnergy, {"activation": "relu"}),
    (QuadraticEnergy, {"activation": "silu"}),
    (ConvEnergy, {"activation": "softplus"}),
    (ConvEnergy, {"activation": "elu", "top": "absolute"}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_what_16_bits_cost_is_their_rounding(kind, options, dtype, digits):
    energy, image = built(kind, **options), images(3, 24, 20)
    value, gradient = ReducedPrecision(energy, dtype).value_and_grad(image)
    exact_value, exact_gradient = energy.value_and_grad(image)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.complex64
    error = float((gradient - exact_gradient).norm() / exact_gradient.norm())
    # Some roundings to half a unit each in four layers there and back; and a rounded ReLU may be on the other side.
    assert digits / 10 < error < (40 if options.get("activation") == "relu" else 10) * digits
    torch.testing.assert_close(value, exact_value, rtol=4 * digits, atol=0)


def test_chains_in_reduced_precision_have_the_same_posterior():
    # Without a mask the posterior is that of denoising: its mean and spread are what both chains find.
    energy = built(QuadraticEnergy)
    A = SenseOperator(torch.ones(1, 1, 16, 16, dtype=torch.complex64), torch.ones(1, 1, 16, 16))
    data = A.forward(images(1, 16, 16))

    def moments(energy):
        generator = torch.Generator().manual_seed(0)
        samples = langevin(
            A, data, energy, noise_std=0.1, num_samples=16, num_steps=60, keep=20, generator=generator, init=data[:, 0]
        )
        return samples.images.mean(dim=0), samples.images.std(dim=0)

    mean, std = moments(energy)
    reduced_mean, reduced_std = moments(ReducedPrecision(energy))
    # The same noise drives both, so that their difference is that of the gradients: a hundredth of the spread.
    assert float(inner_product(*2 * [reduced_mean - mean]).sqrt()) < 0.03 * float(inner_product(*2 * [std]).sqrt())
    torch.testing.assert_close(reduced_std.mean(), std.mean(), rtol=0.01, atol=0)


def test_other_energies_are_refused():
    with pytest.raises(DeepenError, match="allowed in reduced precision: ConvEnergy or QuadraticEnergy"):
        ReducedPrecision(torch.nn.Identity())
