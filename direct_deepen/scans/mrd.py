"""ISMRMRD raw data (MRD) as scans: acquisitions sorted into k-space, noise and calibration told apart.

Inati et al., *ISMRM Raw data format*, MRM 77, 411, 2017. An acquisition is one readout of all coils; its header says
which line of which image it is. A line lies at ``columns // 2 - center + kspace_encode_step_1``, with the limits of the
encoding, and its sample ``center_sample`` at ``rows // 2``: the centre of k-space is in the middle, and what partial
Fourier or a partial echo leaves out is not sampled.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from direct_deepen.data.ismrmrd_header import read_header
from direct_deepen.errors import DeepenError, optional_import, require
from direct_deepen.scans.scan import Position, Scan, places_of

_IMAGE = ("slice", "contrast", "phase", "repetition", "set")
"""Counters of an acquisition that tell images apart; averages are averaged, segments belong together."""
_NO_IMAGE = (
    "NOISE_MEASUREMENT", "NAVIGATION_DATA", "PHASECORR_DATA", "HPFEEDBACK_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA",
    "SURFACECOILCORRECTIONSCAN_DATA", "PHASE_STABILIZATION_REFERENCE", "PHASE_STABILIZATION",
)  # fmt: skip
"""Flags of acquisitions that are no lines of an image."""
_CALIBRATION = ("PARALLEL_CALIBRATION", "PARALLEL_CALIBRATION_AND_IMAGING")
_SEPARATE = ("separate", "external")
"""Modes of calibration in which its lines are another scan, of another contrast."""


def is_mrd(file: h5py.File) -> bool:
    """Return whether a file of HDF5 holds raw data of ISMRMRD."""
    return _group_of(file) is not None


def _group_of(file: h5py.File) -> h5py.Group | None:
    return next(
        (group for group in file.values() if isinstance(group, h5py.Group) and {"xml", "data"} <= set(group)), None
    )


@contextmanager
def mrd_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open raw data; ``axes`` are told by every acquisition, so that none may be given.

    Raises
    ------
    DeepenError
        If there is no line of an image, the encoding is 3D or not Cartesian, or lines do not fit the header's matrix.
    """
    with optional_import("mrd", "ISMRMRD raw data need ismrmrd"):
        import ismrmrd
    require(axes is None, f"{path}: --axes is {','.join(axes or ())}; allowed with ISMRMRD: none, as its lines say it")
    flags = {name: 1 << (getattr(ismrmrd, f"ACQ_IS_{name}") - 1) for name in (*_NO_IMAGE, *_CALIBRATION, "REVERSE")}
    with h5py.File(path, "r") as file:
        group = _group_of(file)
        assert group is not None  # its reader was chosen by it
        try:
            scan = _Acquisitions(group, flags).scan(path)
        except DeepenError as error:
            raise DeepenError(f"{path}: {error}") from error
        yield scan


class _Acquisitions:
    """The acquisitions of a file by what they are."""

    def __init__(self, group: h5py.Group, flags: Mapping[str, int]) -> None:
        self.data, self.flags = group["data"], flags
        self.xml = group["xml"][0]
        require(len(self.data) > 0, "holds no acquisition; allowed: lines of k-space")
        self.heads = self.data.fields("head")[:]
        self.header = read_header(self.xml)

    def _are(self, *names: str) -> np.ndarray:
        return (self.heads["flags"] & np.uint64(sum(self.flags[name] for name in names))) != 0

    def scan(self, path: Path) -> Scan:
        """Return the scan."""
        noise = np.flatnonzero(self._are("NOISE_MEASUREMENT"))
        lines = ~self._are(*_NO_IMAGE)
        others = self.heads["encoding_space_ref"] != 0
        remarks = []
        if (lines & others).any():
            remarks.append(f"{(lines & others).sum()} lines of further encodings are left out")
        lines &= ~others
        told = f"holds {len(self.data)} acquisitions, {len(noise)} of them noise"
        require(bool(lines.any()), f"{told}, and no line of an image; allowed: lines of k-space")
        self._require_cartesian(lines)
        calibration = lines & self._are("PARALLEL_CALIBRATION") & ~self._are("PARALLEL_CALIBRATION_AND_IMAGING")
        separate = self.header.calibration in _SEPARATE and bool((lines & ~calibration).any())
        kspace = self._kspace(np.flatnonzero(lines & ~calibration if separate else lines))
        scans = None
        if separate and calibration.any():
            scans = self._kspace(np.flatnonzero(calibration))
            remarks.append(f"{calibration.sum()} lines of a separate calibration scan: for coil maps alone")
        averages = kspace.averages
        if averages > 1:
            remarks.append(f"{averages:g} averages, averaged")
        return Scan(
            path, "ISMRMRD", kspace, mask=kspace.masks, header=self.xml, noise=self._noise(noise, lines),
            calibration=scans, labels=kspace.labels,
            places=places_of(kspace.images, [0]), positions=kspace.positions, remarks=remarks,
        )  # fmt: skip

    def _require_cartesian(self, lines: np.ndarray) -> None:
        steps = np.unique(self.heads["idx"]["kspace_encode_step_2"][lines])
        depth = self.header.encoded[2] if self.header.encoded else 1
        require(
            len(steps) == 1 and depth == 1,
            f"is encoded in 3D, with {max(depth, len(steps))} steps of the second phase encoding; allowed: 2D",
        )
        require(
            self.header.trajectory in ("", "cartesian"),
            f"the trajectory of its header is {self.header.trajectory}; allowed: cartesian",
        )
        reverse = (lines & self._are("REVERSE")).sum()
        require(reverse == 0, f"{reverse} lines are read out backwards, as in EPI; allowed: lines of one direction")

    def _noise(self, numbers: np.ndarray, lines: np.ndarray) -> np.ndarray | None:
        """Return the noise scan as it is in k-space: its variance goes with the bandwidth, one over the dwell time."""
        if len(numbers) == 0:
            return None
        parts = [_samples(self.data[number]) for number in numbers]
        dwell, of_lines = (float(self.heads["sample_time_us"][where].mean()) for where in (numbers, lines))
        factor = np.sqrt(dwell / of_lines) if dwell > 0 and of_lines > 0 else 1.0
        return np.concatenate(parts, axis=1) * np.complex64(factor)

    def _kspace(self, numbers: np.ndarray) -> "_Lines":
        return _Lines(self.data, self.heads, numbers, self.header.encoded, self.header.limits)


class _Lines:
    """Lines sorted into images: k-space (image, coil, row, column), read image by image."""

    dtype = np.dtype(np.complex64)

    def __init__(
        self,
        data: h5py.Dataset,
        heads: np.ndarray,
        numbers: np.ndarray,
        encoded: tuple[int, int, int] | None,
        limits: tuple[int, int] | None,
    ) -> None:
        self._data, self._heads = data, heads
        chosen = heads[numbers]
        counters = np.stack([chosen["idx"][name] for name in _IMAGE], axis=1)
        self.images, of_image = np.unique(counters, axis=0, return_inverse=True)
        self._numbers = [numbers[of_image.ravel() == image] for image in range(len(self.images))]
        coils = np.unique(chosen["active_channels"])
        require(len(coils) == 1, f"numbers of coils change between lines: {coils.tolist()}; allowed: one number")
        samples, steps = chosen["number_of_samples"], chosen["idx"]["kspace_encode_step_1"]
        rows = max(encoded[0] if encoded else 0, int(samples.max()) if encoded is None else 0)
        last, centre = limits or (int(steps.max()), (encoded[1] if encoded else int(steps.max()) + 1) // 2)
        columns = max(encoded[1] if encoded else 0, last + 1)
        self.shape = (len(self.images), int(coils[0]), rows, columns)
        self._first = columns // 2 - centre
        places = self._columns(numbers)
        require(
            bool((places >= 0).all() and (places < columns).all()),
            f"lines have the steps {steps.min()} to {steps.max()}, with the centre at {centre}; allowed by its header: "
            f"{columns} columns",
        )
        starts, ends = self._rows(numbers)
        require(
            bool((starts >= 0).all() and (ends <= rows).all()),
            f"lines have {samples.min()} to {samples.max()} samples with the centre at up to "
            f"{int(chosen['center_sample'].max())}; allowed by its header: {rows} rows with the centre in the middle",
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Any) -> np.ndarray:
        image, *coil = place if isinstance(place, tuple) else (place,)
        total = np.zeros(self.shape[1:], np.complex64)
        for number, column, start in self._lines_of(image):
            line = _samples(self._data[number])
            total[:, start : start + line.shape[1], column] += line
        total /= np.maximum(self._counts(image), 1)
        return total[coil[0]] if coil else total

    def _lines_of(self, image: int) -> Iterator[tuple[int, int, int]]:
        numbers = self._numbers[image]
        starts, _ = self._rows(numbers)
        yield from zip(numbers.tolist(), self._columns(numbers).tolist(), starts.tolist(), strict=True)

    def _columns(self, numbers: np.ndarray) -> np.ndarray:
        return self._first + self._heads["idx"]["kspace_encode_step_1"][numbers].astype(int)

    def _rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first row of lines, and the one after the last."""
        heads = self._heads[numbers]
        whole, before, after = (
            heads[name].astype(int) for name in ("number_of_samples", "discard_pre", "discard_post")
        )
        # Many writers leave the centre at zero.
        centre = np.where(heads["center_sample"] == 0, whole // 2, heads["center_sample"].astype(int))
        starts = self.shape[2] // 2 - centre + before
        return starts, starts + whole - before - after

    def _counts(self, image: int) -> np.ndarray:
        counts = np.zeros(self.shape[2:], np.float32)
        _, ends = self._rows(self._numbers[image])
        for (_, column, start), end in zip(self._lines_of(image), ends.tolist(), strict=True):
            counts[start:end, column] += 1
        return counts

    @cached_property
    def masks(self) -> np.ndarray:
        """Where every image was sampled, boolean (image, row, column)."""
        return np.stack([self._counts(image) > 0 for image in range(len(self))])

    @property
    def averages(self) -> float:
        """The most averages of a line."""
        return max(float(self._counts(image).max()) for image in range(len(self)))

    @property
    def labels(self) -> tuple[str, ...]:
        """What every image is, by the counters that differ."""
        varying = [place for place in range(len(_IMAGE)) if len(np.unique(self.images[:, place])) > 1]
        return tuple(", ".join(f"{_IMAGE[place]} {image[place] + 1}" for place in varying) for image in self.images)

    @property
    def positions(self) -> tuple[Position, ...]:
        """Where every image lies; none where headers have no directions."""
        heads = [self._heads[numbers[0]] for numbers in self._numbers]
        names = ("read_dir", "phase_dir", "slice_dir")
        if any(np.linalg.norm(head[name]) == 0 for head in heads for name in names):
            return ()
        return tuple(Position(head["position"].astype(float), *(_unit(head[name]) for name in names)) for head in heads)


def _unit(vector: np.ndarray) -> np.ndarray:
    found = np.asarray(vector, dtype=float)
    return found / np.linalg.norm(found)


def _samples(record: Any) -> np.ndarray:
    """Return the samples of an acquisition, complex64 (coil, sample), without those that are to be discarded."""
    head = record["head"]
    samples = record["data"].view(np.complex64).reshape(int(head["active_channels"]), -1)
    return samples[:, int(head["discard_pre"]) : samples.shape[1] - int(head["discard_post"])]
