"""The memory of persistent chains: what it gives back, forgets, and finds on disk."""

import pytest
import torch

from direct_deepen.engines.persistent_chains import PersistentChains, mask_digest

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


def test_room_for_no_state_is_refused(one_line_error):
    with one_line_error("max_stored", "0", "allowed"):
        PersistentChains(0)


# ---- The digest of a mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_the_digest_is_that_of_the_samples_whatever_the_type(dtype):
    assert mask_digest(MASK.to(dtype)) == DIGEST
    assert mask_digest(MASK.transpose(1, 2).contiguous().transpose(1, 2).to(dtype)) == DIGEST


def test_one_other_sample_or_another_shape_is_another_digest():
    flipped = MASK.clone()
    flipped[0, 5, 7] = ~flipped[0, 5, 7]
    assert len({DIGEST, mask_digest(flipped), mask_digest(MASK.reshape(1, 8, 6)), OTHER_DIGEST}) == 4


# ---- On disk


def test_what_is_read_is_what_was_written_in_the_order_of_use(tmp_path):
    chains = chains_of(("a.h5", 0), ("a.h5", 1), ("b.h5", 0))
    assert chains.get(("a.h5", 0), DIGEST) is not None
    chains.save(tmp_path / "chains.pt", 41)
    smaller = PersistentChains(2)
    assert smaller.load(tmp_path / "chains.pt") == 41
    assert len(smaller) == 2
    assert torch.equal(smaller.get(("a.h5", 0), DIGEST), image(0.0))
    assert torch.equal(smaller.get(("b.h5", 0), DIGEST), image(2.0))


def test_reading_forgets_what_was_there(tmp_path):
    chains_of(("a.h5", 0)).save(tmp_path / "chains.pt", 1)
    chains = chains_of(("b.h5", 0))
    chains.load(tmp_path / "chains.pt")
    assert chains.get(("b.h5", 0), DIGEST) is None
    assert len(chains) == 1


def test_a_writing_that_fails_leaves_the_older_file_whole(tmp_path, full_disk, one_line_error):
    path = tmp_path / "chains.pt"
    chains_of(("a.h5", 0)).save(path, 1)

    with full_disk(), one_line_error(str(path), "No space left"):
        chains_of(("b.h5", 0)).save(path, 2)
    chains = PersistentChains(10)
    assert chains.load(path) == 1
    assert chains.get(("a.h5", 0), DIGEST) is not None


def damaged_contents():
    good = {"iteration": 1, "names": [["a.h5", 0]], "digests": [DIGEST], "images": [image(0.0)]}
    return {
        "text": b"not a file of torch",
        "empty": b"",
        "a list": [1, 2],
        "no images": {key: value for key, value in good.items() if key != "images"},
        "fewer digests": good | {"digests": []},
        "names without slices": good | {"names": ["a.h5"]},
        "images that are none": good | {"images": ["image"]},
    }


@pytest.mark.parametrize("kind", ["truncated", *damaged_contents()])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, one_line_error, kind):
    path = tmp_path / "persistent_chains_0.pt"
    if kind == "truncated":
        chains_of(("a.h5", 0)).save(path, 1)
        path.write_bytes(path.read_bytes()[:-200])
    else:
        content = damaged_contents()[kind]
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
    with one_line_error(str(path), "delete it"):
        PersistentChains(10).load(path)
