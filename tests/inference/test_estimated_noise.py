"""``noise_level: estimated``: every slice has the ε of its own k-space, and with it the weight of the prior."""

import numpy as np
import pytest
import torch

from direct_deepen import DeepenError, align_phase, intensity_scale, load_pretrained
from direct_deepen.data.phantom.volume import brain_volume
from direct_deepen.evaluation.metrics import quality
from direct_deepen.inference import LangevinStep, Map, estimators, langevin, mm_map, samplers
from direct_deepen.inference.samplers import AnnealedLangevin, Langevin
from direct_deepen.parts import check_settings
from direct_deepen.physics import SenseOperator, estimated_noise_std
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import DiffusionDenoiser

SIZE, COILS = 64, 8
NOISE = (0.003, 0.03)
"""η of the two images; the weights are those of 0.007."""


@pytest.fixture(scope="module")
def heads():
    """Problem of two heads with another noise each, sampled 4 times at random around a full centre; references."""
    mask = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[..., 24:40, 24:40] = True
    mask = mask.float().expand(2, -1, -1, -1)
    volumes = [
        brain_volume(np.random.default_rng([3, i]), num_slices=1, size=SIZE, num_coils=COILS, noise_std=noise)
        for i, noise in enumerate(NOISE)
    ]
    maps = torch.stack([torch.from_numpy(volume.sensitivity_map) for volume in volumes])
    kspace = torch.cat([torch.from_numpy(volume.kspace) for volume in volumes])
    A = align_phase(SenseOperator(maps, mask), kspace * mask)
    scale = intensity_scale(A, kspace * mask)
    data = kspace * mask / scale[:, None, None, None]
    reference = A.fully_sampled().adjoint(kspace) / scale[:, None, None]
    return Problem(A, data, scale, [("volume", 0), ("volume", 1)]), reference


FEW = {"max_iterations": 5}
"""Steps of MAP, where all that counts is that they are the same."""


def psnr(image, reference):
    return torch.tensor([quality(*pair).psnr for pair in zip(image, reference, strict=True)])


def test_every_image_has_what_its_own_noise_gives(heads):
    problem, _ = heads
    levels = 2**0.5 * estimated_noise_std(problem.masked_kspace, problem.A.sampling_mask)
    estimated = Langevin(noise_level="estimated", **FEW).solve(problem, load_pretrained("brain_phantom_2d4x"))
    torch.testing.assert_close(estimated.arrays["noise_std"], levels, rtol=0, atol=0)
    for i, level in enumerate(levels.tolist()):
        alone = problem.select(torch.tensor([i]))
        given = Langevin(noise_std=level, **FEW).solve(alone, load_pretrained("brain_phantom_2d4x"))
        torch.testing.assert_close(estimated.image[i : i + 1], given.image, rtol=0, atol=0)


def test_with_much_noise_the_weight_that_follows_is_near_the_best_by_the_reference(heads):
    # (0.03/0.007)² is 18. Measured: 18.6 dB with the weight of training, 23.2 with the estimate, and by the reference
    # 22.6 and 23.6 with 10 and 30.
    problem, reference = heads[0].select(torch.tensor([1])), heads[1][1:]
    trained, best, estimated = (
        psnr(
            Langevin(**settings, tolerance=1e-5).solve(problem, load_pretrained("brain_phantom_2d4x")).image, reference
        )
        for settings in ({}, {"prior_weight": 30.0}, {"noise_level": "estimated"})
    )
    assert estimated > best - 0.6
    assert estimated > trained + 3


def test_chains_have_the_same_noise_and_prior(heads):
    problem, _ = heads
    alone = problem.select(torch.tensor([1]))
    (level,) = (2**0.5 * estimated_noise_std(alone.masked_kspace, alone.A.sampling_mask)).tolist()
    few = {"num_samples": 2, "num_steps": 4, "keep": 1, "start": "sense"}
    first, second = (
        Langevin(**few, **noise).sample(alone, load_pretrained("brain_phantom_2d4x"), torch.Generator().manual_seed(0))
        for noise in ({"noise_level": "estimated"}, {"noise_std": level})
    )
    torch.testing.assert_close(first.images, second.images, rtol=0, atol=0)
    assert first.noise_std == second.noise_std == pytest.approx(level)


def test_a_level_that_is_given_and_estimated_is_refused():
    with pytest.raises(DeepenError, match=r"model\.inference\.noise_std is 0\.02; allowed with .*estimated: null"):
        check_settings(Langevin(noise_level="estimated", noise_std=0.02), "model.inference")


@pytest.mark.parametrize("averaged_noise", [False, True])
def test_chains_step_as_the_configuration_says(heads, monkeypatch, averaged_noise):
    steps = []
    monkeypatch.setattr(
        samplers, "langevin", lambda *args, **options: steps.append(options["step"]) or langevin(*args, **options)
    )
    inference = Langevin(
        num_samples=1, num_steps=1, keep=1, start="sense", step_size=0.3, preconditioner=0.5,
        averaged_noise=averaged_noise,
    )  # fmt: skip
    alone = heads[0].select(torch.tensor([0]))
    inference.sample(alone, load_pretrained("brain_phantom_2d4x"), torch.Generator().manual_seed(0))
    assert steps == [LangevinStep(0.3, preconditioner=0.5, averaged_noise=averaged_noise)]


def test_the_accuracy_of_map_is_in_units_of_the_noise(heads, monkeypatch):
    stops = []
    monkeypatch.setattr(
        estimators, "mm_map", lambda *args, **options: stops.append(options["stopping"]) or mm_map(*args, **options)
    )
    alone, energy = heads[0].select(torch.tensor([0])), load_pretrained("brain_phantom_2d4x")
    for accuracy in (None, 0.5):
        Map(noise_std=0.02, accuracy=accuracy, max_iterations=1).solve(alone, energy)
    # η is ε/√2.
    assert [stop.accuracy for stop in stops] == [None, pytest.approx(0.5 * 0.02 / 2**0.5)]


@pytest.fixture(scope="module")
def denoiser():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionDenoiser(channels=(4, 6), num_blocks=1, preconditioning="edm").eval()


def test_annealed_chains_end_at_the_noise_of_the_slice(heads, denoiser):
    alone = heads[0].select(torch.tensor([1]))
    (noise_std,) = estimated_noise_std(alone.masked_kspace, alone.A.sampling_mask).tolist()
    few = {"num_samples": 2, "num_levels": 3, "inner_steps": 1}
    first, second = (
        AnnealedLangevin(**few, **noise).sample(alone, denoiser, torch.Generator().manual_seed(0))
        for noise in (
            {"noise_level": "estimated", "noise_std": 0.005, "smallest_noise_std": 0.01},
            {"noise_std": noise_std, "smallest_noise_std": 2 * noise_std},
        )
    )
    # ε = √2η is rounded once more, and solves end at a hundredth of the noise.
    torch.testing.assert_close(first.images, second.images, rtol=0, atol=0.01 * noise_std)


@pytest.mark.parametrize("rule", ["langevin", "metropolis"])
def test_a_denoiser_is_no_energy_to_step_along(heads, denoiser, rule):
    alone = heads[0].select(torch.tensor([1]))
    with pytest.raises(DeepenError, match=f"rule is '{rule}'; allowed with a denoiser"):
        AnnealedLangevin(rule=rule).sample(alone, denoiser, torch.Generator().manual_seed(0))


def test_a_slice_with_more_noise_than_the_first_level_is_refused(heads, denoiser):
    alone = heads[0].select(torch.tensor([1]))
    annealed = AnnealedLangevin(noise_level="estimated", largest_noise_std=0.02)
    with pytest.raises(DeepenError, match=r"last noise level is 0\.04\d*; allowed: below largest_noise_std = 0\.02"):
        annealed.sample(alone, denoiser, torch.Generator().manual_seed(0))
