"""The memory of persistent chains: what it gives back, forgets, and restores."""

import pytest
import torch

from direct_deepen.objectives.training_samples import PersistentChains, mask_digest

MASK = torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(0)) < 0.5
DIGEST = mask_digest(MASK)
OTHER_DIGEST = mask_digest(~MASK)


def image(value: float) -> torch.Tensor:
    return torch.full((6, 8), value + 1j * value, dtype=torch.complex64)


def chains_of(*names, max_stored=10):
    chains = PersistentChains(max_stored)
    for value, name in enumerate(names):
        chains.put(name, DIGEST, image(float(value)))
    return chains


# ---- In memory


def test_a_state_is_given_back_for_its_slice_and_mask_alone():
    chains = chains_of(("a.h5", 0), ("a.h5", 1), ("b.h5", 0))
    assert torch.equal(chains.get(("a.h5", 1), DIGEST), image(1.0))
    assert chains.get(("a.h5", 2), DIGEST) is None
    assert chains.get(("c.h5", 0), DIGEST) is None
    assert chains.get(("a.h5", 1), OTHER_DIGEST) is None


def test_a_state_replaces_that_of_the_same_slice_under_any_mask():
    chains = chains_of(("a.h5", 0))
    chains.put(("a.h5", 0), OTHER_DIGEST, image(5.0))
    assert len(chains) == 1
    assert chains.get(("a.h5", 0), DIGEST) is None
    assert torch.equal(chains.get(("a.h5", 0), OTHER_DIGEST), image(5.0))


def test_what_is_kept_is_a_copy_without_a_graph():
    state = image(1.0).requires_grad_()
    chains = PersistentChains(1)
    chains.put(("a.h5", 0), DIGEST, state)
    with torch.no_grad():
        state.zero_()
    kept = chains.get(("a.h5", 0), DIGEST)
    assert torch.equal(kept, image(1.0))
    assert not kept.requires_grad


def test_the_state_unused_for_longest_is_forgotten_first():
    chains = chains_of(("a.h5", 0), ("a.h5", 1), ("a.h5", 2), max_stored=3)
    assert chains.get(("a.h5", 0), DIGEST) is not None
    chains.put(("a.h5", 1), DIGEST, image(9.0))
    chains.put(("a.h5", 3), DIGEST, image(3.0))
    chains.put(("a.h5", 4), DIGEST, image(4.0))
    assert len(chains) == 3
    assert chains.get(("a.h5", 2), DIGEST) is None
    assert chains.get(("a.h5", 0), DIGEST) is None
    assert torch.equal(chains.get(("a.h5", 1), DIGEST), image(9.0))


# ---- The digest of a mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_the_digest_is_that_of_the_samples_whatever_the_type(dtype):
    assert mask_digest(MASK.to(dtype)) == DIGEST
    assert mask_digest(MASK.transpose(1, 2).contiguous().transpose(1, 2).to(dtype)) == DIGEST


def test_one_other_sample_or_another_shape_is_another_digest():
    flipped = MASK.clone()
    flipped[0, 5, 7] = ~flipped[0, 5, 7]
    assert len({DIGEST, mask_digest(flipped), mask_digest(MASK.reshape(1, 8, 6)), OTHER_DIGEST}) == 4


# ---- As content of a file


def test_what_is_restored_is_what_was_kept_in_the_order_of_use():
    chains = chains_of(("a.h5", 0), ("a.h5", 1), ("b.h5", 0))
    assert chains.get(("a.h5", 0), DIGEST) is not None
    smaller = PersistentChains(2)
    smaller.load_state_dict(chains.state_dict())
    assert len(smaller) == 2
    assert torch.equal(smaller.get(("a.h5", 0), DIGEST), image(0.0))
    assert torch.equal(smaller.get(("b.h5", 0), DIGEST), image(2.0))


def test_restoring_forgets_what_was_there():
    chains = chains_of(("b.h5", 0))
    chains.load_state_dict(chains_of(("a.h5", 0)).state_dict())
    assert chains.get(("b.h5", 0), DIGEST) is None
    assert len(chains) == 1
