"""Networks from images to images."""

import pytest
import torch

from direct_deepen.objectives import lipschitz_quotient
from direct_deepen.priors import Denoiser, ImageNetwork


def build(kind, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(hidden_channels=4, num_layers=3, **arguments)


def test_a_denoiser_subtracts_what_the_network_gives(draw):
    image = draw(2, 6, 7, dtype=torch.complex64)
    network, denoiser = build(ImageNetwork), build(Denoiser)
    torch.testing.assert_close(denoiser(image), image - network(image))


@pytest.mark.parametrize("kind", [ImageNetwork, Denoiser])
def test_size_dtype_and_image_are_kept(draw, kind):
    image = draw(2, 6, 7)
    copy = image.clone()
    result = build(kind).double()(image)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert torch.equal(image, copy)


@pytest.mark.parametrize("channels", [8, 32, 64])
def test_a_fresh_network_contracts_so_that_mol_starts_behind_its_barrier(draw, channels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels)
        network = ImageNetwork(hidden_channels=channels).double()
    quotient = lipschitz_quotient(
        network, draw(1, 16, 16), num_iterations=50, generator=torch.Generator().manual_seed(0)
    )
    # Measured 0.07 to 0.2.
    assert float(quotient.max()) < 0.5


def test_a_real_image_and_another_precision_are_refused(draw, one_line_error):
    with one_line_error("complex (batch, height, width)", "float64"):
        build(Denoiser)(draw(1, 6, 6).real)
    with one_line_error("complex64", "complex128"):
        build(Denoiser)(draw(1, 6, 6))
