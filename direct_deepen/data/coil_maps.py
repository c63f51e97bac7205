"""Coil maps of a batch: DIRECT's, or ESPIRiT's, computed once for every slice and mask."""

import hashlib
import io
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

COIL_MAPS = ("direct", "espirit")


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
    volume of the same name, never gets the wrong maps. None computes them anew.
    """
    slices = zip(masked_kspace, sampling_mask[:, 0], strict=True)
    return torch.stack([_maps_of_slice(kspace, mask, cache) for kspace, mask in slices])


def _maps_of_slice(kspace: torch.Tensor, mask: torch.Tensor, cache: Path | None) -> torch.Tensor:
    if cache is None:
        return espirit_maps(kspace, mask)
    path = cache / f"{hashlib.sha256(kspace.cpu().contiguous().numpy().tobytes()).hexdigest()[:32]}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path, allow_pickle=False)).to(kspace)
    maps = espirit_maps(kspace, mask)
    content = io.BytesIO()
    np.save(content, maps.cpu().numpy())
    write_file(path, content.getvalue())
    return maps
