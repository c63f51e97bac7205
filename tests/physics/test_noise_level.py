"""The noise level from centre and corners: against what was put in, its unit, and where there is none to find."""

import numpy as np
import pytest
import torch

from direct_deepen import DeepenError
from direct_deepen.data.phantom.volume import brain_volume
from direct_deepen.physics import complex_normal
from direct_deepen.physics.noise_level import estimated_noise_std

SIZE = 64


def centre_mask(width, size=SIZE):
    mask = torch.zeros(1, 1, size, size)
    first = size // 2 - width // 2
    mask[..., first : first + width, first : first + width] = 1
    return mask


def head(coils, noise_std, seed=1):
    """K-space (1, coil, SIZE, SIZE) of a phantom, and the noise in its unit."""
    volume = brain_volume(
        np.random.default_rng([seed, coils]), num_slices=1, size=SIZE, num_coils=coils, noise_std=noise_std
    )
    return torch.from_numpy(volume.kspace), volume.noise_std


@pytest.mark.parametrize("coils", [4, 8, 16])
@pytest.mark.parametrize("noise_std", [0.002, 0.02])
@pytest.mark.parametrize(("width", "most"), [(24, 1.15), (12, 1.25)])
def test_the_noise_that_was_put_in_is_found(coils, noise_std, width, most):
    # Signal can only add; 26 simulated slices had 0.98 to 1.11 and 1.06 to 1.21, with a spread of 0.03 and 0.05.
    kspace, truth = head(coils, noise_std)
    mask = centre_mask(width)
    assert 0.93 < float(estimated_noise_std(kspace * mask, mask)) / truth < most


def test_of_noise_alone_it_is_that_of_the_noise():
    noise = 0.3 * complex_normal((1, 8, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    mask = centre_mask(24)
    # Some 15 eigenvalues of 324, of windows that share samples: a standard error of 3 % (of 20 draws, 0.02).
    assert float(estimated_noise_std(noise * mask, mask)) == pytest.approx(0.3, rel=0.1)


def test_it_has_the_unit_of_the_data_and_each_slice_its_own():
    kspace, _ = head(6, 0.01)
    mask = centre_mask(24)
    level, of_all = estimated_noise_std(kspace * mask, mask), estimated_noise_std(kspace, torch.ones_like(mask))
    both = torch.cat([1e-20 * kspace * mask, 1e15 * kspace])
    masks = torch.cat([mask, torch.ones_like(mask)])
    torch.testing.assert_close(estimated_noise_std(both, masks), torch.cat([1e-20 * level, 1e15 * of_all]))


@pytest.mark.parametrize("coils", [4, 8, 16])
@pytest.mark.parametrize("noise_std", [0.002, 0.02])
@pytest.mark.parametrize("mask", ["full", "lines"])
def test_with_corners_the_level_is_neither_far_above_nor_below(coils, noise_std, mask):
    # The smaller of two estimates that scatter by some per cent each.
    kspace, truth = head(coils, noise_std)
    sampling_mask = torch.ones(1, 1, SIZE, SIZE)
    if mask == "lines":
        sampling_mask[..., ::2] = 0
        sampling_mask[..., SIZE // 2 - 12 : SIZE // 2 + 12] = 1
    assert 0.9 < float(estimated_noise_std(kspace * sampling_mask, sampling_mask)) / truth < 1.15


def test_corners_without_noise_are_not_believed():
    noise = 0.3 * complex_normal((1, 8, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    centre = centre_mask(24)
    filtered = noise * (0.01 + 0.99 * centre)
    assert float(estimated_noise_std(filtered, torch.ones_like(centre))) == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize("structure", ["centre", "corners"])
def test_of_centre_and_corners_that_with_less_signal_is_taken(structure):
    # Noise alone, and much of what no coil combination explains in one of the two: the other has the level.
    noise = 0.3 * complex_normal((1, 8, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    more = complex_normal((1, 8, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    centre = centre_mask(24)
    kspace = noise + 0.3 * more * (centre if structure == "centre" else 1 - centre)
    assert float(estimated_noise_std(kspace, torch.ones_like(centre))) == pytest.approx(0.3, rel=0.1)


def test_few_coils_are_estimated_from_the_corners():
    kspace, truth = head(1, 0.02)
    full = torch.ones(1, 1, SIZE, SIZE)
    # Signal in the corners of so small a matrix: within half, as corners are.
    assert 0.8 < float(estimated_noise_std(kspace, full)) / truth < 1.5


@pytest.mark.parametrize(
    ("coils", "width", "told"), [(2, 24, "24 samples and 2 coils"), (4, 8, "8 samples and 4 coils")]
)
def test_where_there_is_nothing_to_find_one_line_says_so(coils, width, told):
    kspace, _ = head(coils, 0.01)
    mask = centre_mask(width)
    with pytest.raises(DeepenError, match=f"noise level cannot be estimated: the fully sampled centre has {told}"):
        estimated_noise_std(kspace * mask, mask)


def test_an_empty_slice_is_refused():
    with pytest.raises(DeepenError, match="zero everywhere"):
        estimated_noise_std(torch.zeros(1, 8, SIZE, SIZE, dtype=torch.complex64), torch.ones(1, 1, SIZE, SIZE))


def test_a_level_is_estimated_of_slices_alone(one_line_error):
    with one_line_error("masked_kspace", "(1, 8, 3, 32, 32)", "(batch, coil, height, width)"):
        estimated_noise_std(torch.zeros(1, 8, 3, 32, 32, dtype=torch.complex64), torch.ones(1, 1, 3, 32, 32))
