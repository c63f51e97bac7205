"""The memory of persistent chains: where the chain of a slice was left."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from direct_deepen.errors import require


def mask_digest(sampling_mask: torch.Tensor) -> str:
    """Return a digest of a sampling mask, equal for equal masks whatever their dtype and device."""
    bits = (sampling_mask != 0).to("cpu", torch.uint8).contiguous()
    return hashlib.sha256(repr(tuple(bits.shape)).encode() + bits.numpy().tobytes()).hexdigest()[:16]


class PersistentChains:
    """States of chains by file and slice, with the mask they belong to.

    Parameters
    ----------
    max_stored
        Largest number of images; the one unused for longest goes first.
    """

    def __init__(self, max_stored: int) -> None:
        require(max_stored >= 1, f"max_stored is {max_stored!r}; allowed: >= 1")
        self.max_stored = max_stored
        self._states: OrderedDict[tuple[str, int], tuple[str, torch.Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, name: tuple[str, int], digest: str) -> torch.Tensor | None:
        """Return the state of a slice, or None where there is none for this mask."""
        entry = self._states.get(name)
        if entry is None or entry[0] != digest:
            return None
        self._states.move_to_end(name)
        return entry[1]

    def put(self, name: tuple[str, int], digest: str, image: torch.Tensor) -> None:
        """Keep a copy, on the CPU, of the state of a slice."""
        self._states[name] = (digest, image.detach().to("cpu", copy=True))
        self._states.move_to_end(name)
        while len(self._states) > self.max_stored:
            self._states.popitem(last=False)

    def clear(self) -> None:
        """Forget all states."""
        self._states.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return all states, in the order of their last use."""
        return {
            "names": [[name, number] for name, number in self._states],
            "digests": [digest for digest, _ in self._states.values()],
            "images": [image for _, image in self._states.values()],
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Replace all states by those of :meth:`state_dict`."""
        self.clear()
        entries = zip(content["names"], content["digests"], content["images"], strict=True)
        for (name, number), digest, image in entries:
            self.put((name, number), digest, image)
