"""What the tests of scans share: k-space of a phantom."""

import numpy as np
import pytest

from direct_deepen.data.phantom import brain_volume


@pytest.fixture(scope="session")
def kspace() -> np.ndarray:
    """Two slices of four coils, 64×64, complex64."""
    return brain_volume(np.random.default_rng([3, 0]), num_slices=2, size=64, num_coils=4).kspace.astype(np.complex64)


@pytest.fixture(scope="session")
def lines() -> np.ndarray:
    """A mask over columns: every second, and sixteen in the middle."""
    mask = np.zeros(64, dtype=bool)
    mask[::2] = mask[24:40] = True
    return mask
