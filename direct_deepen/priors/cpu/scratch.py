"""Memory that is written again and again instead of being asked for: the system clears every page it gives."""

import threading

import torch


class Scratch(threading.local):
    """A stretch of memory of a CPU for every thread and type of number; it grows to what is needed, and stays."""

    def __init__(self) -> None:
        self._stretches: dict[torch.dtype, torch.Tensor] = {}

    def stretch(self, length: int, dtype: torch.dtype) -> torch.Tensor:
        """Return numbers of any value, whose place the next call in the same thread takes over."""
        known = self._stretches.get(dtype)
        if known is None or len(known) < length:
            # The old one goes first: both together would be the peak.
            self._stretches.pop(dtype, None)
            known = self._stretches[dtype] = torch.empty(length, dtype=dtype)
        return known[:length]
