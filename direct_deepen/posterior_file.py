"""The posterior file: what stands beside DIRECT's magnitude reconstruction, one HDF5 file a volume.

``<volume>.posterior.h5`` holds, slice by slice and in the units of the data,

===================== ============================ =====================================================================
``map``               complex (slice, row, column) MAP image
``mean``              complex (slice, row, column) posterior mean, the MMSE image
``std``               real (slice, row, column)    standard deviation of the magnitude
``std_complex``       real (slice, row, column)    standard deviation per real component
``split_r_hat``       real (slice, row, column)    convergence of the magnitude, where enough states were kept
===================== ============================ =====================================================================

and one number a slice for the intensity scale, cost, step size, curvature, gradient evaluations and seconds. All but
``map`` and its figures are there in posterior mode only. Settings and versions are attributes of the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from direct_deepen.errors import require


def posterior_path(directory: Path, volume: Path) -> Path:
    """Return where the posterior of a volume lies."""
    return directory / f"{volume.stem}.posterior.h5"


class PosteriorWriter:
    """Gather the slices of volumes and write each volume as soon as it is complete.

    Parameters
    ----------
    directory
        Where the files go; made if it does not exist.
    slices
        Number of slices of every volume.
    attributes
        Attributes of every file.
    """

    def __init__(self, directory: Path, slices: Mapping[Path, int], attributes: Mapping[str, str | float]) -> None:
        self.directory = directory
        self._slices = dict(slices)
        self._attributes = dict(attributes)
        self._pending: dict[Path, dict[int, dict[str, np.ndarray]]] = {}

    def add(self, volume: Path, slice_number: int, arrays: Mapping[str, np.ndarray]) -> Path | None:
        """Add a slice; return the path of the volume's file if that completed it, None otherwise.

        Raises
        ------
        DeepenError
            If the volume is unknown.
        """
        require(volume in self._slices, f"{volume}: not a volume of this run")
        pending = self._pending.setdefault(volume, {})
        pending[slice_number] = dict(arrays)
        if len(pending) < self._slices[volume]:
            return None
        del self._pending[volume]
        path = posterior_path(self.directory, volume)
        self._write(path, [pending[number] for number in sorted(pending)])
        return path

    def _write(self, path: Path, slices: list[dict[str, np.ndarray]]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        try:
            with h5py.File(temporary, "w") as file:
                file.attrs.update(self._attributes)
                for name in slices[0]:
                    file.create_dataset(name, data=np.stack([arrays[name] for arrays in slices]))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
