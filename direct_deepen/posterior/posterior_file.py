"""The posterior file: what stands beside DIRECT's magnitude reconstruction, one HDF5 file a volume.

Datasets of ``<volume>.posterior.h5``; images first, then one number a slice:

=================================== ======= ============================= ============================================
dataset                             type    axes                          meaning
=================================== ======= ============================= ============================================
``map``                             complex slice, row, column            MAP image
``mean``                            complex slice, row, column            posterior mean, the MMSE image
``std``                             real    slice, row, column            standard deviation of u, the part in phase
                                                                          with ``mean``: what its magnitude shows
``std_complex``                     real    slice, row, column            standard deviation per real component
``quantiles``                       real    slice, quantile, row, column  of u, at the probabilities of the attribute
                                                                          ``quantile_probabilities``
``samples``                         complex slice, sample, row, column    if ``model.inference.save_samples``; the
                                                                          states of a chain follow one another
``split_r_hat``                     real    slice, row, column            convergence of u, near 1 is good
``effective_sample_size``           real    slice, row, column            of u, for its mean
``image``                           complex slice, row, column            of systems that have neither MAP nor mean
``reference``                       complex slice, row, column            of all samples, where a trial left some out
``slice_number``                    integer slice                         number in the volume's file, from 0
``scale``                           real    slice                         intensity scale
``cost``                            real    slice                         C at the MAP image, in scaled intensities
``converged``                       boolean slice                         whether MAP met its tolerance
``outside_band``,                   real    slice                         figures of ``direct_deepen.misfit`` that show
``brightness``, ``departure``,                                            a result not to be trusted
``residual``, ``energy_per_pixel``,
``unexplained``, ``noise_above``,
``noise_below``, ``spike``,
``off_centre``, ``unlike_training``
``noise_std``                       real    slice                         ε, where every slice has its own
``noise_by_ring``                   real    slice, ring                   η of the rings of k-space, where they have it
``step_size``, ``curvature``        real    slice                         of the chains: mean step, largest curvature
``map_seconds``,                    real    slice                         time of MAP, of the samples, and of the noise
``posterior_seconds``,                                                    by ring before both
``noise_seconds``
``map_gradient_evaluations``,       real    slice                         evaluations of ∇E
``posterior_gradient_evaluations``,
``noise_gradient_evaluations``
=================================== ======= ============================= ============================================

The axes are dimension scales: ``xarray.open_dataset(path, engine="h5netcdf")`` names them. A file has the datasets of
its method: ``mean`` and what follows from samples, ``map`` and its numbers where there is an energy to minimise,
diagnostics where ten or more states of a chain were kept. DIRECT's own file has the magnitude of ``mean``, ``map`` or
``image``, the first that is there.

Attributes of the file:

=================================== ====================================================================================
``units``                           of which datasets, and what they are
``intensity_scale``                 what ``scale`` means
``noise_std``                       ε of the posterior, in scaled intensities (DEEPEN), unless every slice has its own
``num_samples``                     chains, or independent samples
``num_steps``, ``keep``             steps of a chain, and states kept of it (DEEPEN)
``averaged_noise``                  whether steps are without bias where C is quadratic; if not, samples are about a
                                    tenth too far from their mean (docs/guarantees.md)
``momentum``                        share of its momentum that a step keeps (DEEPEN)
``quantile_probabilities``          of ``quantiles``
``calibrated``, ``std_scale``       whether ``direct-deepen calibrate`` was run for the weights, and the scale of the
                                    samples about their mean that it fitted; 1 where it was not (DEEPEN)
``ring_scales``                     the scales of their k-space, ring by ring, that it fitted besides
``training_energy``                 mean and standard deviation of ``energy_per_pixel`` of the images that training
                                    saw; missing where the checkpoint has none
``seed``                            DIRECT's ``--seed``; torch's seed where no command of DIRECT ran
``configuration``                   the model section, YAML
``data_configuration``              the section ``inference.dataset``, YAML: masks and transforms
``data``                            the volume's file: path as given, bytes, and when it was changed
``reconstruction_size``,            of the images that the volume's header is meant for: rows and columns; row, column
``voxel_size``                      and slice in mm, field of view over matrix. Neither where it does not say
``name``                            of the file that was reconstructed, where its ending is not ``.h5``
``affine``                          4×4, row by row, from column, row and slice of the images to millimetres right,
                                    anterior, superior; missing where the file does not say, or slices are of several
                                    series
``weights_sha256``                  of all weights that were used
``device``                          ``cpu`` or ``cuda``
``direct_deepen_version``,          versions of the packages
``direct_version``,
``torch_version``
=================================== ====================================================================================
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import interrupt_waits, new_hdf5, open_hdf5
from direct_deepen.posterior.misfit import ENERGY, LIKELY, LIMITS, exceeded

type FileAttributes = dict[str, str | float | list[float]]
"""What an HDF5 file can say of itself, by name."""

REFERENCE = "reference"

IN_DATA_UNITS = ("image", "map", "mean", "std", "std_complex", "quantiles", "samples", REFERENCE, "scale")
"""Datasets in the units of the data."""

ESTIMATES = ("map", "mean", "image")
"""Datasets that are reconstructions; where there are several, the last is the one that was asked for."""

MEANING = {
    "units": f"{', '.join(IN_DATA_UNITS)}: of the k-space in the volume's file, by an orthonormal Fourier transform",
    "intensity_scale": "images divided by `scale` are in scaled intensities, those of noise_std, cost and energy",
}
"""Attributes that say what the numbers of every file mean."""

_ENDING = ".posterior.h5"


def posterior_path(directory: Path, volume: Path) -> Path:
    """Return where the posterior of a volume lies."""
    return directory / f"{volume.stem}{_ENDING}"


def final_estimate(names: Iterable[str]) -> str:
    """Return which of the datasets of a file is the reconstruction that was asked for."""
    return [name for name in ESTIMATES if name in set(names)][-1]


@dataclass(frozen=True)
class PosteriorVolume:
    """What a posterior file holds: its datasets and its attributes by name."""

    path: Path
    arrays: dict[str, np.ndarray]
    attributes: dict[str, str | float | np.ndarray]

    @property
    def name(self) -> str:
        """Name of the file of the volume that was reconstructed."""
        return str(self.attributes.get("name", f"{self.path.name.removesuffix(_ENDING)}.h5"))

    def estimates(self) -> list[str]:
        """Return the names of the reconstructions that the file holds; one at least, or a :class:`DeepenError`."""
        found = [name for name in ESTIMATES if name in self.arrays]
        require(len(found) > 0, f"{self.path}: holds none of {', '.join(ESTIMATES)}; allowed: a posterior file")
        return found


def read_posterior(path: Path, *, num_samples: int = 0) -> PosteriorVolume:
    """Read a posterior file.

    ``num_samples`` of every slice are read, equally spaced among those of the file; by default ``samples``, by far the
    largest dataset, is left out. A file that is missing or that HDF5 cannot read is a :class:`DeepenError`.
    """
    with open_output(path) as file:
        arrays = {name: dataset[()] for name, dataset in file.items() if _is_read(name, dataset)}
        if num_samples > 0 and "samples" in file:
            saved = file["samples"].shape[1]
            chosen = np.unique(np.linspace(0, saved - 1, min(num_samples, saved)).round().astype(int))
            arrays["samples"] = file["samples"][:, chosen]
        return PosteriorVolume(path, arrays, dict(file.attrs))


def _is_read(name: str, dataset: object) -> bool:
    # Of a damaged file there may be names without anything behind them.
    return isinstance(dataset, h5py.Dataset) and not dataset.is_scale and name != "samples"


@contextmanager
def open_output(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file that ``direct predict`` wrote; errors of reading within the context name it too."""
    require(path.is_file(), f"{path}: no such file; run `direct predict` first")
    with open_hdf5(path, "output of `direct predict`") as file:
        yield file


def doubts_of(volume: PosteriorVolume) -> dict[str, tuple[float, list[int]]]:
    """Return what :func:`~direct_deepen.posterior.misfit.exceeded` says of a volume; old files have no figures."""
    known = np.atleast_1d(np.asarray(volume.attributes.get("training_energy", []), dtype=float)).tolist()
    return exceeded(volume.arrays, (known[0], known[1]) if len(known) == 2 else None)


def misfit_text(path: Path) -> str:
    """Return a line that names the slices of a file which are not to be trusted and why; empty where there are none."""
    with open_output(path) as file:
        figures = {name: file[name][()] for name in (*LIMITS, ENERGY) if name in file}
        volume = PosteriorVolume(path, figures, dict(file.attrs))
    doubts = doubts_of(volume)
    reasons = [
        f"{name} up to {figures[name][slices].max():.3g}, above {limit:.3g} ({LIKELY[name]}), in {_listed(slices)}"
        for name, (limit, slices) in doubts.items()
    ]
    return f"{volume.name}: not to be trusted: {'; '.join(reasons)}." if reasons else ""


def _listed(slices: list[int]) -> str:
    return f"slice{'s' if len(slices) > 1 else ''} {', '.join(str(number + 1) for number in slices)}"


class PosteriorWriter:
    """Gather the slices of volumes, with so many ``slices`` each, and write each volume as soon as it is complete.

    Samples, which are many, go to the disk slice by slice, into a file that has no name of its own until it is whole.
    """

    def __init__(self, directory: Path, slices: Mapping[Path, int], attributes: Mapping[Path, FileAttributes]) -> None:
        self.directory = directory
        self._slices = dict(slices)
        self._attributes = dict(attributes)
        self._pending: dict[Path, dict[int, dict[str, np.ndarray]]] = {}
        self._open: dict[Path, tuple[AbstractContextManager[h5py.File], h5py.File]] = {}

    def add(self, volume: Path, slice_number: int, arrays: Mapping[str, np.ndarray]) -> Path | None:
        """Add a slice; return the path of the volume's file if that completed it, None otherwise.

        A slice without arrays is written as zero, if another has some; its convergence is then no number.
        """
        require(volume in self._slices, f"{volume}: not a volume of this run")
        pending = self._pending.setdefault(volume, {})
        pending[slice_number] = {**arrays, "slice_number": np.array(slice_number)}
        samples = pending[slice_number].pop("samples", None)
        if samples is not None:
            with self._file(volume) as file:
                # In the order in which they come, which is nearly always that of slices.
                _samples(file, self._slices[volume], samples)[list(pending).index(slice_number)] = samples
        if len(pending) < self._slices[volume]:
            return None
        del self._pending[volume]
        path = posterior_path(self.directory, volume)
        slices = [pending[number] for number in sorted(pending)]
        names = dict.fromkeys(name for arrays in slices for name in arrays)
        datasets = ((name, _stacked(name, slices)) for name in names)
        if volume not in self._open:
            with new_hdf5(path) as file:
                _write(file, datasets, self._attributes[volume])
            return path
        with self._file(volume) as file:
            _sort(file["samples"], list(pending))
            _write(file, datasets, self._attributes[volume])
        self._open.pop(volume)[0].__exit__(None, None, None)
        return path

    @contextmanager
    def _file(self, volume: Path) -> Iterator[h5py.File]:
        """Open the file of a volume that is not complete; an error of the disk ends it."""
        # Ctrl-C within HDF5 would be an error of writing.
        with interrupt_waits():
            if volume not in self._open:
                context = new_hdf5(posterior_path(self.directory, volume), large=True)
                self._open[volume] = context, context.__enter__()
            try:
                yield self._open[volume][1]
                self._open[volume][1].flush()
            except OSError as error:
                self._open.pop(volume)[0].__exit__(type(error), error, error.__traceback__)
                raise

    def close(self) -> None:
        """Remove the files of volumes that are not complete."""
        while self._open:
            _, (context, _) = self._open.popitem()
            end = GeneratorExit()
            with suppress(DeepenError):
                context.__exit__(type(end), end, None)


def _samples(file: h5py.File, number: int, like: np.ndarray) -> h5py.Dataset:
    """Return the dataset of the samples of so many slices; what is not written of it is zero, as of empty slices."""
    if "samples" not in file:
        chunks = (1, 1, *like.shape[1:])
        file.create_dataset("samples", (number, *like.shape), like.dtype, chunks=chunks)
    return file["samples"]


def _sort(dataset: h5py.Dataset, numbers: list[int]) -> None:
    """Bring what is in the order of some numbers into that of their size, two slices at a time."""
    for row, number in enumerate(sorted(numbers)):
        other = numbers.index(number)
        if other != row:
            dataset[row], dataset[other] = dataset[other], dataset[row]
            numbers[row], numbers[other] = numbers[other], numbers[row]


def _stacked(name: str, slices: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    like = next(arrays[name] for arrays in slices if name in arrays)
    empty = np.full_like(like, np.nan if name == "split_r_hat" else 0)
    return np.stack([arrays.pop(name, empty) for arrays in slices])


def write_posterior(
    path: Path, slices: Iterable[Mapping[str, np.ndarray]], num_slices: int, attributes: FileAttributes
) -> None:
    """Write a file of so many slices, each with its ``slice_number``, one after the other: memory is that of one.

    What a slice lacks that another has is zero, and its convergence no number.
    """
    with new_hdf5(path, large=True) as file:
        for place, arrays in enumerate(slices):
            for name, array in arrays.items():
                if name not in file:
                    empty = np.nan if name == "split_r_hat" else None
                    file.create_dataset(name, (num_slices, *array.shape), array.dtype, fillvalue=empty)
                file[name][place] = array
        _write(file, (), attributes)


def _write(file: h5py.File, datasets: Iterable[tuple[str, np.ndarray]], attributes: FileAttributes) -> None:
    file.attrs.update(attributes)
    for name, array in datasets:
        file.create_dataset(name, data=array)
    for name, dataset in list(file.items()):
        for number, dimension in enumerate(_dimensions(name, dataset.ndim)):
            if dimension not in file:
                file.create_dataset(dimension, data=np.arange(dataset.shape[number]))
                file[dimension].make_scale(dimension)
            dataset.dims[number].label = dimension
            dataset.dims[number].attach_scale(file[dimension])


def _dimensions(name: str, number: int) -> tuple[str, ...]:
    """Return the names of the axes of a dataset: the second of two is that of rings, of four a quantile or sample."""
    among = {2: ("ring",), 4: (name.removesuffix("s"), "row", "column")}
    return ("slice", *(among.get(number, ("row", "column") if number > 1 else ())))
