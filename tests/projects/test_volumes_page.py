"""Series of the page of volumes are periodic and their data are of them; its methods are what they say."""

import numpy as np
import torch

from direct_deepen.physics import SenseOperator
from projects.volumes.cine import beating, cine, measured
from projects.volumes.energies import FrameByFrame, crops, new_energy
from projects.volumes.temporal_tv import temporal_tv

SLICE = np.pad(np.linspace(1, 2, 32 * 32).reshape(32, 32), 16)


def test_a_series_moves_little_from_frame_to_frame_and_ends_where_it_began():
    frames = beating(SLICE, np.random.default_rng(0), 16)
    steps = np.linalg.norm(frames - np.roll(frames, 1, axis=0), axis=(1, 2)) / np.linalg.norm(frames[0])
    assert 0 < steps.min() <= steps.max() < 0.3
    # The step from the last frame to the first is one like the others.
    assert steps[0] < 2 * np.median(steps)


def test_data_are_of_the_series_with_a_mask_of_lines_for_every_frame():
    series = cine(SLICE, 3, num_frames=4, size=32)
    assert series.shape == (4, 32, 32)
    assert series.abs().max() == 1
    data = measured(series, 3, acceleration=4.0, num_coils=3, noise_std=0.0)
    torch.testing.assert_close(data.A.forward(data.reference), data.masked_kspace, rtol=0, atol=1e-5)
    mask = data.A.sampling_mask
    assert bool((mask == mask[..., :1, :]).all())
    assert not torch.equal(mask[:, :, 0], mask[:, :, 1])


def test_both_kinds_of_energy_see_the_same_pieces_and_have_about_as_many_weights():
    pieces = crops([torch.ones(4, 70, 66, dtype=torch.complex64)], torch.Generator().manual_seed(0))
    piece = next(pieces)
    assert piece.shape == (1, 4, 64, 64)
    counts = [sum(weight.numel() for weight in new_energy(dimensions, 0).parameters()) for dimensions in (2, 3)]
    assert 1 <= counts[0] / counts[1] < 1.4


def test_frame_by_frame_is_the_sum_over_frames(draw):
    energy, series = new_energy(2, 0).double(), draw(2, 3, 6, 5)
    value, gradient = FrameByFrame(energy).value_and_grad(series)
    parts = [energy.value_and_grad(series[:, frame]) for frame in range(3)]
    torch.testing.assert_close(value, sum(part[0] for part in parts))
    torch.testing.assert_close(gradient, torch.stack([part[1] for part in parts], dim=1))


def test_temporal_variation_is_least_squares_soft_in_differences(draw):
    A = SenseOperator(torch.ones(1, 1, 1, 4, 4, dtype=torch.complex128), torch.ones(1, 1, 6, 4, 4))
    series = draw(1, 6, 4, 4)
    b = A.forward(series)

    def cost(x):
        differences = (x - x.roll(1, dims=1)).abs().sum()
        return 0.5 * (A.forward(x) - b).abs().square().sum() + 0.1 * differences

    found = temporal_tv(A, b, regularization=0.1, max_iterations=2000)
    # A minimum: nothing around it is lower, and the data themselves are higher.
    around = [cost(found + 1e-3 * draw(1, 6, 4, 4, seed=seed)) for seed in range(5)]
    assert cost(found) < min([cost(series), *around])
    # With so large a λ all that is left is the mean.
    still = temporal_tv(A, b, regularization=100.0, max_iterations=2000)
    torch.testing.assert_close(still, series.mean(dim=1, keepdim=True).expand_as(still), rtol=0, atol=1e-3)
