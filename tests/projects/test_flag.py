"""Troubles of the page of the flag are what they say, and its areas are those under curves."""

import numpy as np
import pytest
import torch

from direct_deepen.physics import complex_normal
from direct_deepen.physics.fourier import fft2, ifft2
from projects.flag.report import area
from projects.flag.troubles import Slice, maps_of_another, moved, off_centre, smooth_errors, spike, spike_place


@pytest.fixture
def one():
    generator = torch.Generator().manual_seed(0)
    maps, image = complex_normal((4, 32, 32), generator=generator), complex_normal((32, 32), generator=generator)
    return Slice("a", fft2(maps * image), image, maps, 0.01)


def test_areas_are_shares_of_pairs():
    good = np.array([1.0, 2.0, 3.0, 4.0])
    assert area(good, good) == 0.5
    assert (area(good, good + 9), area(good, good - 9)) == (1, 0)
    assert area(good, np.array([2.5])) == 0.5


def test_moved_k_space_is_that_of_a_moved_image(one):
    torch.testing.assert_close(ifft2(moved(one.kspace, 3)), ifft2(one.kspace).roll((3, 3), (-2, -1)))


def test_a_spike_is_one_sample_of_all_coils_and_a_shift_keeps_all_energy(one):
    change = spike(100)(one, one, torch.Generator().manual_seed(0)).slice.kspace - one.kspace
    row, column = spike_place(32, 32)
    torch.testing.assert_close(change[:, row, column].abs(), torch.ones(4))
    assert int((change != 0).sum()) == 4
    shifted = off_centre(2)(one, one, torch.Generator()).slice.kspace
    torch.testing.assert_close(shifted[:, 5, 7], one.kspace[:, 3, 5])


def test_errors_of_maps_are_smooth_and_of_their_size(one):
    maps = torch.ones(4, 32, 32, dtype=torch.complex64) / 2
    given = smooth_errors(0.1)(one, one, torch.Generator().manual_seed(0))
    change = given.map_error(maps) - maps
    assert 0.05 < float((change.abs().square().sum() / maps.abs().square().sum()).sqrt()) < 0.11
    assert float(fft2(change)[:, :8].abs().max()) < 0.05 * float(fft2(change).abs().max())
    assert float(maps_of_another(one, one, torch.Generator()).map_error(maps).abs().square().sum(dim=0).max()) < 1.001
