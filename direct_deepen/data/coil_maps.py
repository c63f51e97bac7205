"""Coil maps of a batch: DIRECT's, or ESPIRiT's, computed once for every slice and mask."""

import functools
import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from direct_deepen.data.batch import to_complex
from direct_deepen.errors import require_choice
from direct_deepen.files import write_file
from direct_deepen.physics.espirit import espirit_maps
from direct_deepen.physics.sense_operator import SenseOperator, align_phase

_logger = logging.getLogger(__name__)

COIL_MAPS = ("direct", "espirit")

CACHE_LIMIT = 8 * 2**30
"""Bytes of the maps that are kept in a folder: 800 slices of 12 coils at 320×320."""


def coil_maps_of_batch(data: Mapping[str, Any], kind: str, cache: Path | None) -> torch.Tensor | None:
    """Return the coil maps of a batch of DIRECT, complex (batch, coil, height, width); None for those it comes with.

    ``kind`` is one of :data:`COIL_MAPS`. ESPIRiT's, of :func:`espirit_maps_of_batch`, are given the phase of DIRECT's,
    so that a prior trained with one kind serves with the other.

    Raises
    ------
    DeepenError
        If ``kind`` is unknown, or the mask has no fully sampled centre.
    """
    require_choice("model.coil_maps", kind, COIL_MAPS)
    if kind == "direct":
        return None
    kspace, mask = to_complex(data["masked_kspace"]), data["sampling_mask"].squeeze(-1)
    return align_phase(SenseOperator(espirit_maps_of_batch(kspace, mask, cache), mask), kspace).sensitivity_map


def espirit_maps_of_batch(masked_kspace: torch.Tensor, sampling_mask: torch.Tensor, cache: Path | None) -> torch.Tensor:
    """Return ESPIRiT maps of k-space, both complex (batch, coil, height, width), sampled by (batch, 1, height, width).

    ``cache`` is a folder of one file for every slice, named by a digest of its data, so that another mask, or another
    volume of the same name, never gets the wrong maps. It takes no more than :data:`CACHE_LIMIT`; the maps of further
    slices are computed every time. None computes all of them anew.
    """
    slices = zip(masked_kspace, sampling_mask[:, 0], strict=True)
    return torch.stack([_maps_of_slice(kspace, mask, cache) for kspace, mask in slices])


def _maps_of_slice(kspace: torch.Tensor, mask: torch.Tensor, cache: Path | None) -> torch.Tensor:
    if cache is None:
        return espirit_maps(kspace, mask)
    path = cache / f"{hashlib.sha256(kspace.cpu().contiguous().numpy().tobytes()).hexdigest()[:32]}.npy"
    if path.exists():
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False)).to(kspace)
        except (ValueError, EOFError, OSError):
            _logger.warning("%s is damaged: the coil maps of this slice are computed anew.", path)
            path.unlink(missing_ok=True)
    maps = espirit_maps(kspace, mask)
    content = io.BytesIO()
    np.save(content, maps.cpu().numpy())
    # The first ones are kept: slices come back in any order, so that throwing out the oldest would lose those to come.
    if _size_of(cache) + len(content.getvalue()) <= CACHE_LIMIT:
        write_file(path, content.getvalue())
    else:
        _tell_full(cache)
    return maps


def _size_of(folder: Path) -> int:
    sizes = 0
    for path in folder.glob("*.npy"):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:  # another process has just replaced it
            continue
    return sizes


@functools.cache
def _tell_full(folder: Path) -> None:
    """Say once of a folder that it takes no more."""
    _logger.info("%s holds %.1f GiB of coil maps, and no more are kept.", folder, CACHE_LIMIT / 2**30)
