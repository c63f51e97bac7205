"""Objectives over noise levels: the minimum of each is where theory has it."""

import pytest
import torch

from direct_deepen.objectives import diffusion_loss, distillation_loss, draw_noise_levels

STD = 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def best(image, noise_std):
    """The posterior mean of images N(0, STD²)."""
    return STD**2 / (STD**2 + noise_std[:, None, None] ** 2) * image


def best_energy(image, noise_std):
    """The energy with the gradient x − best(x, σ)."""
    variance = noise_std**2
    return 0.5 * variance / (STD**2 + variance) * image.abs().square().sum(dim=(1, 2))


def test_levels_have_uniform_logarithms_between_their_ends():
    levels = draw_noise_levels(20_000, smallest=0.01, largest=10.0, generator=generator())
    share = (levels.log10() + 2) / 3
    assert 0 <= float(share.min()) < 0.001
    assert 0.999 < float(share.max()) <= 1
    # Mean and variance of a uniform number, four standard errors.
    assert float(share.mean()) == pytest.approx(0.5, abs=4 / (12 * 20_000) ** 0.5)
    assert float(share.var()) == pytest.approx(1 / 12, abs=0.003)


def test_the_best_denoiser_has_the_loss_of_theory_and_every_other_a_larger_one(draw):
    image = STD * draw(400, 8, 8, seed=5)
    levels = torch.full((400,), 0.5, dtype=torch.float64)

    def loss(factor):
        return float(diffusion_loss(lambda x, s: factor * best(x, s), image, levels, generator=generator()))

    # Two real components of variance V·σ²/(V + σ²) each, over σ².
    assert loss(1.0) == pytest.approx(2 * STD**2 / (STD**2 + 0.25), rel=0.02)
    assert loss(1.0) < min(loss(0.9), loss(1.1))


def test_every_image_gets_its_own_level(draw):
    image, levels = draw(3, 4, 4), torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    seen = {}

    def denoiser(x, noise_std):
        seen["noise"] = (x - image).abs().square().mean(dim=(1, 2)).sqrt() / 2**0.5
        assert torch.equal(noise_std, levels)
        return image

    assert float(diffusion_loss(denoiser, image, levels, generator=generator())) == 0
    torch.testing.assert_close(seen["noise"], levels, rtol=0.5, atol=0)


SHARES = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def test_distillation_shows_images_with_a_share_of_the_noise_of_their_level(draw):
    image, levels = draw(3, 16, 16), torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    seen = {}

    def teacher(x, noise_std):
        seen["noise"] = (x - image).abs().square().mean(dim=(1, 2)).sqrt() / 2**0.5
        assert torch.equal(noise_std, levels)
        return x

    distillation_loss(best_energy, teacher, image, levels, SHARES, generator=generator())
    # 512 real components an image: a standard error of 3 %.
    torch.testing.assert_close(seen["noise"], SHARES * levels, rtol=0.15, atol=1e-12)


def test_an_energy_with_the_score_of_its_teacher_has_no_loss(draw):
    image, levels = draw(3, 4, 4), torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    assert float(distillation_loss(best_energy, best, image, levels, SHARES, generator=generator())) < 1e-20
    other = distillation_loss(
        lambda x, s: 1.1 * best_energy(x, s), best, image, levels, SHARES, generator=generator()
    )  # fmt: skip
    assert float(other) > 1e-3


def test_no_gradient_goes_into_the_teacher(draw):
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    student = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = distillation_loss(
        lambda x, s: student * best_energy(x, s), lambda x, s: weight * best(x, s), draw(2, 4, 4), torch.ones(2),
        torch.ones(2),
        generator=generator(),
    )  # fmt: skip
    loss.backward()
    assert weight.grad is None
    assert float(student.grad) != 0
