"""Scans that are not on a grid: the same command, a likelihood of the samples as they are."""

import numpy as np
import pytest
import torch

from direct_deepen.data.phantom import brain_volume
from direct_deepen.physics import sense
from direct_deepen.physics.non_cartesian import NonCartesianOperator
from direct_deepen.scans.arrays import with_trajectory
from direct_deepen.scans.preparation import Choices
from direct_deepen.scans.reading import open_scan
from direct_deepen.scans.reconstruction import Method, look_at, pretrained_prior, reconstruct_slice
from direct_deepen.scans.trajectories import found_matrix
from direct_deepen.scans.undersampling import Undersampling

SIZE = 64


def rays(count, samples=SIZE):
    """Positions (sample, ray, 2) of rays through the centre."""
    radius = (np.arange(samples) - samples // 2) / samples
    angles = np.pi * np.arange(count) / count
    return np.stack([radius[:, None] * np.sin(angles), radius[:, None] * np.cos(angles)], axis=-1)


def spiral(interleaves, turns, samples):
    """Positions of Archimedes' spirals, whose neighbours are 0.5/(turns·interleaves) apart."""
    share = np.linspace(0, 1, samples)[:, None]
    angles = 2 * np.pi * (turns * share + np.arange(interleaves) / interleaves)
    return 0.5 * share[..., None] * np.stack([np.sin(angles), np.cos(angles)], axis=-1)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Samples (coil, sample, ray) of a phantom along 100 rays with a little noise, in a file; and the coil images."""
    volume = brain_volume(np.random.default_rng([3, 0]), num_slices=1, size=SIZE, num_coils=6)
    maps, image = torch.from_numpy(volume.sensitivity_map)[None], torch.from_numpy(volume.image[:1])
    trajectory = rays(100)
    A = NonCartesianOperator(maps.to(torch.complex64), torch.from_numpy(trajectory.reshape(-1, 2)).float())
    data = A.forward(image.to(torch.complex64))[0].numpy()
    eta = 0.01 * float(image.abs().max())
    noise = np.random.default_rng(0).normal(size=(*data.shape, 2)) @ [1, 1j]
    path = tmp_path_factory.mktemp("rays") / "radial.npz"
    data = (data + eta * noise).astype(np.complex64).reshape(6, SIZE, 100)
    np.savez(path, data=data, trajectory=trajectory.astype(np.float32))
    return path, image[0].abs().numpy(), eta, data, trajectory


def error(image, truth):
    image = np.abs(np.asarray(image))
    # Maps are known up to a smooth factor, whose mean is taken out.
    image = image * (image * truth).sum() / (image**2).sum()
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def test_a_file_with_its_trajectory_is_reconstructed_and_better_than_least_squares(scan):
    path, truth, eta, *_ = scan
    with open_scan(path) as opened:
        choices = Choices(noise_std=eta, undersampling=Undersampling(4))
        prepared = look_at(opened, choices)
        assert prepared.size == (SIZE, SIZE)
        assert "100 rays" in prepared.found["trajectory"]
        one = prepared.slice(0)
    problem = one.problem
    assert problem.masked_kspace.shape == (1, 6, SIZE * 25)
    image = reconstruct_slice(one, pretrained_prior(), Method(num_samples=0))["map"]
    least = min(
        error(sense(problem.A, problem.masked_kspace, max_iterations=number)[0], truth) for number in (3, 5, 8, 12, 20)
    )
    # Of one slice: 0.75 is 2.5 dB.
    assert error(image, truth) < 0.75 * least
    # The reference is that of all rays.
    assert error(one.reference, truth) < error(image, truth)


def test_chains_run_on_it(scan):
    path, truth, eta, *_ = scan
    with open_scan(path) as opened:
        one = look_at(opened, Choices(noise_std=eta)).slice(0)
    found = reconstruct_slice(one, pretrained_prior(), Method(num_samples=2, num_steps=4))
    assert error(found["mean"], truth) < 0.15
    assert (found["std"] >= 0).all()
    assert found["residual"] < 2


def test_the_trajectory_may_be_complex_or_in_a_file_of_its_own(scan, tmp_path):
    path, _, eta, data, trajectory = scan
    with open_scan(path) as opened:
        expected = look_at(opened, Choices(noise_std=eta)).slice(0).problem
    np.savez(tmp_path / "a.npz", kspace=data, coord=trajectory[..., 1] + 1j * trajectory[..., 0])
    np.save(tmp_path / "b.npy", data.reshape(6, -1))
    with open_scan(tmp_path / "a.npz") as opened:
        by_name = look_at(opened, Choices(noise_std=eta)).slice(0).problem
    with open_scan(tmp_path / "b.npy") as opened:
        apart = look_at(with_trajectory(opened, trajectory), Choices(noise_std=eta)).slice(0).problem
    for problem in (by_name, apart):
        torch.testing.assert_close(problem.masked_kspace, expected.masked_kspace, rtol=1e-4, atol=1e-5)


def test_the_noise_is_that_of_the_outermost_samples(scan):
    path, _, eta, *_ = scan
    with open_scan(path) as opened:
        one = look_at(opened).slice(0)
    # Signal makes it larger.
    assert eta < one.noise_std < 2 * eta


def test_the_field_of_view_is_that_of_the_samples():
    assert found_matrix(rays(30, 96)) == 96
    # Neighbours 1/80 apart, and a quarter more.
    assert found_matrix(spiral(8, 5, 3000)) == pytest.approx(100, rel=0.06)


def test_trajectories_that_do_not_belong_are_one_line(scan, tmp_path, one_line_error):
    *_, data, trajectory = scan
    for changed, words in (
        ({"trajectory": trajectory[:-1]}, ("kspace has the shape (6, 64, 100)", "6300 positions")),
        ({"trajectory": 3 * trajectory}, ("reaches 1.5", "0.5")),
        ({"trajectory": trajectory[..., 0]}, ("allowed: (…, 2), or complex",)),
        ({"data": np.abs(data)}, ("complex",)),
    ):
        np.savez(tmp_path / "a.npz", **({"data": data, "trajectory": trajectory} | changed))
        with one_line_error("a.npz", *words), open_scan(tmp_path / "a.npz") as opened:
            look_at(opened)
    np.savez(tmp_path / "a.npz", data=np.where(data == data[0, 0, 0], np.nan, data), trajectory=trajectory)
    with one_line_error("a.npz", "slice 1", "not finite"), open_scan(tmp_path / "a.npz") as opened:
        look_at(opened).slice(0)
    np.savez(tmp_path / "a.npz", data=data, trajectory=trajectory)
    with one_line_error("a.npz", "--axes"), open_scan(tmp_path / "a.npz", ["coil", "row", "column"]):
        pass
    with one_line_error("a.npz", "--accelerate is 2.5", "whole"), open_scan(tmp_path / "a.npz") as opened:
        look_at(opened, Choices(undersampling=Undersampling(2.5)))
    with one_line_error("a.npz", "--noise is corners"), open_scan(tmp_path / "a.npz") as opened:
        look_at(opened, Choices(noise="corners"))
