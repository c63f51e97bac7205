"""The posterior files of a run of ``direct predict``: those that are there already, and those that it writes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from direct_deepen.errors import DeepenError, require
from direct_deepen.posterior.posterior_file import (
    FileAttributes,
    PosteriorWriter,
    final_estimate,
    open_output,
    posterior_path,
)

_logger = logging.getLogger(__name__)


class PosteriorStore:
    """Files of the volumes of a run, where a volume that an earlier run has finished is not computed again.

    Finished is a volume whose file can be read and has just the attributes that it is to get now: the same weights,
    configuration, seed, data, device, calibration and versions.

    Parameters
    ----------
    directory
        Where the files lie.
    slices
        Number of slices of every volume.
    attributes
        What the file of every volume is to say of itself.
    """

    def __init__(self, directory: Path, slices: Mapping[Path, int], attributes: Mapping[Path, FileAttributes]) -> None:
        self._writer = PosteriorWriter(directory, slices, attributes)
        self._finished = {
            volume: path
            for volume in slices
            if (path := posterior_path(directory, volume)).is_file() and _is_finished(path, attributes[volume])
        }
        if self._finished:
            _logger.info("%i of %i volumes were there already.", len(self._finished), len(slices))

    def estimate(self, names: Sequence[tuple[str, int]]) -> np.ndarray | None:
        """Return the reconstruction of slices of one volume, complex (slice, row, column), None if it is not finished.

        Raises
        ------
        DeepenError
            If the file cannot be read any more.
        """
        path = self._finished.get(Path(names[0][0]))
        if path is None:
            return None
        with open_output(path) as file:
            positions = {int(number): position for position, number in enumerate(file["slice_number"])}
            images = file[final_estimate(file)]
            return np.stack([images[positions[number]] for _, number in names])

    def add(self, names: Sequence[tuple[str, int]], slices: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Add slices, write the volumes that they complete, and return the reconstruction as :meth:`estimate` does.

        Raises
        ------
        DeepenError
            If a file cannot be written.
        """
        images = np.stack([arrays[final_estimate(arrays)] for arrays in slices])
        for (name, number), arrays in zip(names, slices, strict=True):
            path = self._writer.add(Path(name), number, {**arrays, "slice_number": np.array(number)})
            if path is not None:
                _logger.info("Wrote posterior: %s.", path)
        return images


def _is_finished(path: Path, attributes: FileAttributes) -> bool:
    """Return whether a file has these attributes and can be read, and tell in the log why not."""
    try:
        with open_output(path) as file:
            other = [name for name, value in attributes.items() if not np.array_equal(file.attrs.get(name), value)]
            if not other:
                file[final_estimate(file)][()]
                return True
            _logger.info("%s has another %s: its volume is computed anew.", path, ", ".join(other))
    except DeepenError as error:
        _logger.warning("%s; its volume is computed anew.", error)
    return False


def file_version(path: Path) -> str:
    """Return what identifies the content of a file: path, as masks follow from it, size and time of the change."""
    status = path.stat()
    return f"{path}, {status.st_size} bytes, changed {status.st_mtime_ns} ns after 1970"


def require_volumes(slices: Mapping[Path, int]) -> None:
    """Raise :class:`DeepenError` unless every volume of a dataset has a slice and a name of its own."""
    seen: dict[str, Path] = {}
    for path, count in slices.items():
        require(count > 0, f"{path}: k-space of no slices; allowed: one or more")
        # Both the files of DIRECT and ours are named by the last part of the path.
        other = seen.setdefault(path.stem, path)
        require(
            other is path,
            f"{other} and {path} would both be written to {path.name}; allowed: volumes of different names",
        )
