"""The exact posteriors are exact, their samples get the scores they are to get, and others do not."""

import pytest
import tiny_direct
import torch

from projects.certified.problem import NOISE_STD, Density, Problem, draw_problem, standard_normal
from projects.certified.report import PRIORS, read, sampler_rows, step_rows
from projects.certified.scores import LEVELS, score, summary
from projects.certified.templates import Templates, boxes, exact_posterior
from projects.certified.wavelets import SparseWavelets, gibbs_posterior, haar

PROJECT = tiny_direct.REPOSITORY / "projects" / "certified"
RESULTS = PROJECT / "results"
SMALL = {
    "boxes": (Templates(torch.tensor([[[0.2, 0.0]], [[-0.1, 0.2j]]], dtype=torch.complex128), 0.12), exact_posterior),
    "wavelets": (SparseWavelets(2, small=0.1, large=0.16, share=0.4), gibbs_posterior),
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


COPIES = 20
"""The same data so many times: the mean over as many Gibbs chains."""


def two_pixels(prior, measured):
    """Data of one signal, of which the frequencies in ``measured`` are measured."""
    truth, mask = prior.draw(1, seeded(0)), torch.tensor([[[measured]]])
    blank = Problem(prior, truth, mask, torch.zeros(1, 1, 1, 2, dtype=truth.dtype))
    clean = blank.operator.forward(truth)
    data = clean + NOISE_STD * mask * standard_normal(tuple(clean.shape), seeded(1))
    return Problem(prior, *(part.repeat(COPIES, *[1] * (part.ndim - 1)) for part in (truth, mask, data)))


def by_quadrature(problem):
    """Mean and covariance of the posterior of two pixels, on a grid of four real numbers."""
    axis = torch.linspace(-0.85, 0.85, 21, dtype=torch.float64)
    real = torch.cartesian_prod(axis, axis, axis, axis)
    image = torch.view_as_complex(real.unflatten(1, (2, 2)).contiguous())
    one = Problem(problem.prior, problem.truth[:1], problem.mask[:1], problem.data[:1])
    weights = one.log_posterior(image[:, None, None]).flatten().softmax(dim=0).to(image.dtype)
    mean = weights @ image
    return mean, 0.5 * torch.einsum("s,si,sj->ij", weights, image - mean, (image - mean).conj())


@pytest.mark.parametrize("name", SMALL)
def test_the_posterior_has_the_moments_of_numerical_integration(name):
    prior, posterior = SMALL[name]
    problem = two_pixels(prior, [True, False])
    exact = posterior(prior, problem, 10, seeded(2))
    mean, covariance = by_quadrature(problem)
    # The Gibbs sampler has Monte-Carlo error, of 500 sweeps of every copy.
    tolerance = {"boxes": 1e-6, "wavelets": 2e-3}[name]
    torch.testing.assert_close(exact.mean.mean(dim=(0, 1)), mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(exact.covariance.mean(dim=0), covariance, rtol=0, atol=tolerance / 5)


@pytest.mark.parametrize("name", SMALL)
def test_scores_are_gradients_and_those_of_noisy_images_denoise(name):
    prior, posterior = SMALL[name]
    image = 0.3 * standard_normal((3, 1, 2), seeded(3))
    for level in (0.0, 0.2):
        variable = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(prior.log_density(variable, level).sum(), variable)
        torch.testing.assert_close(prior.score(image, level), gradient)
        torch.testing.assert_close(Density(prior, 0.5, level).value_and_grad(image)[1], -0.5 * gradient)
    # All frequencies measured are a noisy image, of which the posterior mean is x + σ²∇ log p_σ.
    problem = two_pixels(prior, [True, True])
    noisy = problem.operator.adjoint(problem.data)
    denoised = noisy + NOISE_STD**2 * prior.score(noisy, NOISE_STD)
    tolerance = {"boxes": 1e-12, "wavelets": 2e-3}[name]
    found = posterior(prior, problem, 10, seeded(4)).mean.mean(dim=0)
    torch.testing.assert_close(found, denoised[0], rtol=0, atol=tolerance)


def test_the_wavelets_are_orthonormal_and_local():
    W = haar(8)
    torch.testing.assert_close(W @ W.T, torch.eye(8, dtype=torch.float64))
    assert [int((row != 0).sum()) for row in W] == [8, 8, 4, 4, 2, 2, 2, 2]


@pytest.fixture(scope="module")
def judged():
    """Scores of exact samples beside others, and of samples that go one and a half times as far from their mean."""
    prior = boxes(16)
    problem = draw_problem(prior, 200, seeded(5))
    exact = exact_posterior(prior, problem, 19, seeded(6))
    samples, reference = (exact_posterior(prior, problem, 19, seeded(seed)).samples for seed in (7, 8))
    wrong = exact.mean + 1.5 * (samples - exact.mean)
    scored = [score(images, problem, exact) for images in (samples, wrong, reference)]
    return [summary(found, scored[-1]) for found in scored[:2]]


def test_exact_samples_have_the_scores_of_exact_samples(judged):
    right, _ = judged
    for name in ("gap", "deviation_pixels", "deviation_measured", "deviation_not_measured", "crps_excess"):
        assert abs(right[name]) < 4 * right[f"{name}_se"], name
        assert right[f"{name}_se"] < {"gap": 0.1}.get(name, 2.0)
    for level in LEVELS:
        for kind in ("region", "interval"):
            assert abs(right[f"{kind}_{level}"] - level) < 4 * right[f"{kind}_{level}_se"], (kind, level)


def test_samples_that_are_too_wide_are_told_apart(judged):
    _, wrong = judged
    for name in ("deviation_pixels", "deviation_measured", "deviation_not_measured"):
        assert wrong[name] == pytest.approx(50, abs=4 * wrong[f"{name}_se"])
        assert wrong[name] > 10 * wrong[f"{name}_se"]
    assert wrong["crps_excess"] > 4 * wrong["crps_excess_se"]
    assert wrong["region_50"] > 95
    assert wrong["interval_50"] - 50 > 10 * wrong["interval_50_se"]
    # The mean is that of the posterior all the same.
    assert abs(wrong["gap"]) < 4 * wrong["gap_se"]


def test_the_tables_of_the_page_are_those_of_the_results():
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    tables = (RESULTS / "tables.md").read_text(encoding="utf-8")
    for prior in PRIORS:
        for rows in (sampler_rows(read(RESULTS, prior)), step_rows(read(RESULTS, f"{prior}_steps"))):
            for row in rows:
                assert f"| {' | '.join(row.values())} |\n" in tables
    for line in tables.splitlines():
        if line.startswith("| "):
            assert line in page


@pytest.mark.parametrize("prior", PRIORS)
def test_the_default_step_is_too_wide_and_averaged_noise_is_not(prior):
    steps = read(RESULTS, f"{prior}_steps")
    own, averaged = steps[~steps["averaged_noise"]], steps[steps["averaged_noise"]]
    assert (own.loc[own["step"] == "adapts", "deviation_pixels"] > 10).all()
    assert (own.loc[own["step_size"] <= 0.2, "deviation_pixels"].abs() < 3).all()
    assert (averaged["deviation_pixels"].abs() < 1).all()
