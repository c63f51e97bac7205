r"""Fully sampled volumes of k-space from magnitude images: what images of an archive lack to train on is drawn.

Images that were stored have been interpolated, windowed and made positive. Of each, k-space is cut to the band that was
measured, so that nothing outside of it is known for nothing; then contrast, intensity, pixel size, phase, coils,
shading and noise are drawn,

.. math:: b_c = F(S_c\, R^a m^\gamma e^{i\varphi}) + n_c,
          \qquad n_c \sim \mathcal N(0, \eta^2) \text{ per real component}.

R is what the coils see together, their root sum of squares. Images of an archive are corrected for it; those of coils
with Σ|S|² = 1 are bright where coils are near, the more the smaller these are. Noise comes after the coils: the
background of such images is zero, that of a measurement is not.
"""

import logging
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.data.image_files import ImageSeries, read_series
from direct_deepen.data.phantom.geometry import SmoothField
from direct_deepen.data.phantom.volume import birdcage_maps
from direct_deepen.errors import DeepenError, require, require_count
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.scale import full_sampling_scale
from direct_deepen.progress import progress_bar

_logger = logging.getLogger(__name__)

SMALLEST_SIZE = 64
"""Fewest rows and columns of a volume."""

_UNKNOWN_PIXEL_SIZE = 0.8
"""In mm, of images that do not say theirs."""
_STEEP = -7.0
"""Slope of the power of k-space over frequency, both logarithmic, below which the measured band has ended. In images of
heads it is -2 to -5 inside, and -8 or less at the edge."""
_SHADING, _BRIGHTEST = 2.5, 2.0
"""Largest a, and R, over its median, beyond which it is that: inside of a coil it has no bound."""
_FAT = 0.7
"""Share of the volumes of which fat has a phase of its own."""
_FILLED, _LEAST_SHARE = 0.95, 0.02
"""Largest share of the field of view that a whole object takes; share of a row that is bright, where there is one."""
_DARK, _LEAST_BRIGHT = 0.05, 0.05
"""A slice of which less than the second share is brighter than the first, of the brightest, shows nothing."""


type Sides = tuple[tuple[float, float], tuple[float, float]]
"""Where an object begins and ends along rows and columns, in shares of the image."""


@dataclass(frozen=True)
class Acquisition:
    """From what ranges a volume is drawn."""

    num_slices: int = 4
    """Neighbouring slices of a volume."""
    size: int | None = None
    """Rows and columns; None for what the field of view of the image comes to."""
    num_coils: tuple[int, int] = (4, 32)
    """Fewest and most coils; every octave is as likely."""
    pixel_size: tuple[float, float] = (0.5, 1.3)
    """Smallest and largest pixel in mm; never smaller than was measured."""
    noise_std: tuple[float, float] = (0.002, 0.02)
    """Least and most noise η, per real component, in units of the intensity scale; every octave is as likely."""
    keep_band: bool = False
    """Whether k-space is kept as far as the image has it, and not cut where :func:`measured_band` ends."""
    whole_object: bool = False
    """Whether pixels are so large that the object fits ``size``, as far as ``pixel_size`` lets them: what is cut off at
    the border is a ghost to those who reconstruct it, as coil maps cannot follow the jump."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        require_count("slices", self.num_slices)
        if self.size is not None:
            require_count("size", self.size, SMALLEST_SIZE)
        for name, (least, most), lowest in (
            ("coils", self.num_coils, 1),
            ("pixel-size", self.pixel_size, 0.05),
            ("noise-std", self.noise_std, 1e-6),
        ):
            require(lowest <= least <= most < math.inf, f"{name} is {least} {most}; allowed: {lowest} <= least <= most")
        require(self.size is not None or not self.whole_object, "whole-object is given; allowed with a size")


@dataclass(frozen=True)
class SimulatedVolume:
    """A volume with everything that made it."""

    image: np.ndarray
    """Noise-free image, complex64 (slices, rows, columns), in an arbitrary raw unit."""
    sensitivity_map: np.ndarray
    """Coil maps, complex64 (coils, rows, columns), root sum of squares 1 everywhere."""
    kspace: np.ndarray
    """Noisy k-space, complex64 (slices, coils, rows, columns), in the unit of ``image``."""
    pixel_size: tuple[float, float]
    """Height and width of a pixel in mm."""
    drawn: dict[str, float]
    """``noise_std`` η (in units of the intensity scale), ``kspace_noise_std`` (in those of ``kspace``), ``gamma``,
    ``inverted``, ``shading`` a."""


def simulate_volume(series: ImageSeries, generator: np.random.Generator, acquisition: Acquisition) -> SimulatedVolume:
    """Draw a volume from neighbouring slices of a series; all randomness comes from ``generator``."""
    shown = [image for image in series.images if _shows_something(image)]
    require(len(shown) > 0, f"{series.source}: no slice shows anything; allowed: images")
    count = min(acquisition.num_slices, len(shown))
    first = int(generator.integers(len(shown) - count + 1))
    stored_magnitude = np.stack(shown[first : first + count])
    sides = _sides_of_object(stored_magnitude) if acquisition.whole_object else None
    magnitude, drawn = _draw_contrast(stored_magnitude, generator)
    stored = series.pixel_size or (_UNKNOWN_PIXEL_SIZE, _UNKNOWN_PIXEL_SIZE)
    grid = tuple(
        ((np.arange(number) - number / 2) * size).astype(np.float32)
        for number, size in zip(magnitude.shape[-2:], stored, strict=True)
    )
    phase = _draw_phase(generator, grid) + _draw_fat_phase(generator, magnitude, stored)
    gain = 1e-4 * math.exp(generator.uniform(math.log(0.5), math.log(2.0)))
    image, pixel_size = _draw_matrix(magnitude, phase, stored, sides, generator, acquisition)
    image *= gain
    rows, columns = image.shape[-2:]
    num_coils = round(math.exp(generator.uniform(*np.log(acquisition.num_coils))))
    sensitivity_map, root_sum_of_squares = _draw_coils(generator, num_coils, rows, columns)
    shading = generator.uniform(0.0, _SHADING)
    image *= root_sum_of_squares**shading
    kspace = fft2(torch.from_numpy(image[:, None] * sensitivity_map)).numpy()
    noise_std = math.exp(generator.uniform(*np.log(acquisition.noise_std)))
    raw_noise_std = noise_std * float(full_sampling_scale(torch.from_numpy(kspace)).median())
    noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += np.float32(raw_noise_std) * noise
    drawn |= {"noise_std": noise_std, "kspace_noise_std": raw_noise_std, "shading": shading}
    return SimulatedVolume(image, sensitivity_map, kspace, pixel_size, drawn)


def _shows_something(image: np.ndarray) -> bool:
    return bool(image.max() > 0 and (image > _DARK * np.percentile(image, 99.5)).mean() > _LEAST_BRIGHT)


def _draw_contrast(magnitude: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    """Return magnitudes of about 0 to 1 to a power of 0.67 to 1.5, in one volume of ten with dark for bright."""
    magnitude = np.minimum(magnitude / np.percentile(magnitude, 99.5), 1.5)
    gamma, inverted = math.exp(generator.uniform(-0.4, 0.4)), float(generator.random() < 0.1)
    inside = np.clip((magnitude - 0.02) / 0.08, 0.0, 1.0)
    bright = inside * (1.1 - np.minimum(magnitude, 1.0)) if inverted else magnitude
    return bright.astype(np.float32) ** np.float32(gamma), {"gamma": gamma, "inverted": inverted}


def _draw_matrix(
    magnitude: np.ndarray,
    phase: np.ndarray,
    stored: tuple[float, float],
    sides: Sides | None,
    generator: np.random.Generator,
    acquisition: Acquisition,
) -> tuple[np.ndarray, tuple[float, float]]:
    """Cut k-space to pixels of a size that is drawn, what was measured at least; then the field of view to its size.

    The phase comes before the cut, as in a scanner: the ripples that the cut leaves at edges have signs.
    """
    shape, (least, most) = magnitude.shape[-2:], acquisition.pixel_size
    if sides is not None and acquisition.size is not None:
        lengths = [
            (last - first) * number * size for (first, last), number, size in zip(sides, shape, stored, strict=True)
        ]
        least = min(max(least, *(length / (_FILLED * acquisition.size) for length in lengths)), most)
    wanted = generator.uniform(least, most)
    bands = (1.0, 1.0) if acquisition.keep_band else _measured_bands(magnitude)
    kept = []
    for number, size, band in zip(shape, stored, bands, strict=True):
        measured = int(number * band)
        # Even, so that the centre of k-space stays where it is expected.
        kept.append(2 * (max(SMALLEST_SIZE, min(measured, round(number * size / wanted))) // 2))
    kspace = fft2(torch.from_numpy((magnitude * np.exp(1j * phase)).astype(np.complex64))).numpy()
    kspace = _centred(kspace, (min(kept[0], shape[0]), min(kept[1], shape[1])))
    image = ifft2(torch.from_numpy(np.ascontiguousarray(kspace))).numpy()
    # Unitary transforms of fewer samples of the same image are brighter by the root of their ratio.
    image *= math.sqrt(image[0].size / magnitude[0].size)
    height, width = (number * size / now for number, size, now in zip(shape, stored, image.shape[-2:], strict=True))
    if acquisition.size is not None:
        image = _field_of_view(image, acquisition.size, sides, generator)
    return image, (height, width)


def _sides_of_object(magnitude: np.ndarray) -> Sides:
    """Return where the object begins and ends along rows and columns, in shares of the image."""
    bright = magnitude > 2 * _DARK * np.percentile(magnitude, 99.5)
    sides = []
    for axis in (2, 1):
        # A row of noise has a bright pixel here and there.
        places = np.flatnonzero(bright.mean(axis=axis).max(axis=0) > _LEAST_SHARE)
        count = magnitude.shape[3 - axis]
        sides.append((places[0] / count, (places[-1] + 1) / count) if len(places) else (0.0, 1.0))
    return sides[0], sides[1]


def _measured_bands(magnitude: np.ndarray) -> tuple[float, float]:
    """Return :func:`measured_band` of both axes: of the magnitude, as a phase that is drawn widens the spectrum."""
    kspace = fft2(torch.from_numpy(magnitude).to(torch.complex64)).numpy()
    return measured_band(kspace, -2), measured_band(kspace, -1)


def measured_band(kspace: np.ndarray, axis: int) -> float:
    """Return the share of the band, along an axis, that was measured before the image was interpolated.

    Complex k-space (..., rows, columns), DC in the middle. The power of a head falls with a power of the frequency; at
    the edge of what was measured it drops.
    """
    power = (np.abs(np.moveaxis(kspace, axis, -1)) ** 2).reshape(-1, kspace.shape[axis]).mean(axis=0)
    half = len(power) // 2
    folded = (power[half:][:half] + power[half - 1 :: -1][: len(power) - half][:half]) / 2
    edges = np.linspace(0, half, 21).astype(int)
    bands = np.log10([folded[first:last].mean() + 1e-30 for first, last in pairwise(edges)])
    middles = np.log10((edges[:-1] + edges[1:]) / 2)
    slopes = np.diff(bands) / np.diff(middles)
    steep = np.flatnonzero(slopes[8:] < _STEEP)
    return 1.0 if len(steep) == 0 else float(edges[8 + steep[0] + 1] / half)


def _centred(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the middle of the last two axes, with DC in the middle as before."""
    first = [size // 2 - wanted // 2 for size, wanted in zip(array.shape[-2:], shape, strict=True)]
    return array[..., first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]]


def _field_of_view(image: np.ndarray, size: int, sides: Sides | None, generator: np.random.Generator) -> np.ndarray:
    """Cut a square, anywhere inside that holds what lies between ``sides`` if it can, or add air around."""
    for axis in (1, 2):
        count = image.shape[axis]
        room = count - size
        if room >= 0:
            nearest, farthest = 0, room
            if sides is not None:
                # A pixel more on both sides: odd and even numbers of pixels have their middles half of one apart.
                first, last = sides[axis - 1]
                nearest = min(max(0, math.ceil(last * count) + 1 - size), room)
                farthest = max(min(room, math.floor(first * count) - 1), 0)
            begin = int(generator.integers(nearest, farthest + 1)) if nearest <= farthest else (nearest + farthest) // 2
            image = image.take(range(begin, begin + size), axis=axis)
        else:
            before = -room // 2
            image = np.pad(image, [(0, 0) if other != axis else (before, -room - before) for other in range(3)])
    return image


def _draw_phase(generator: np.random.Generator, grid: tuple[np.ndarray, ...]) -> np.ndarray:
    """Draw the phase of an image in radians: a constant, a gradient, smooth fields, and a few local disturbances.

    Those are what air and metal do: bells of 4 to 15 mm, and up to two turns.
    """
    rows, columns = grid
    down, right = generator.normal(0.0, 0.008, 2).astype(np.float32)
    phase = generator.uniform(-math.pi, math.pi) + down * rows[:, None] + right * columns
    for spacing, strength in ((80.0, generator.uniform(0.4, 1.2)), (25.0, generator.uniform(0.0, 0.4))):
        phase = phase + strength * SmoothField(generator, spacing).at((0.0, rows, columns))
    for _ in range(generator.poisson(2.0)):
        place, width = [generator.uniform(side[0], side[-1]) for side in grid], generator.uniform(4.0, 15.0)
        distance = ((rows - place[0])[:, None] ** 2 + (columns - place[1]) ** 2) / (2 * width**2)
        phase = phase + generator.normal(0.0, 4.0) * np.exp(-distance)
    return phase


def _draw_fat_phase(
    generator: np.random.Generator, magnitude: np.ndarray, pixel_size: tuple[float, float]
) -> np.ndarray:
    """Draw the phase of fat under the skin against water, one angle: a jump at its edge, as in gradient echoes.

    What is bright, and near the outside of the object, is taken for fat. Radians, of the shape of the magnitudes.
    """
    threshold, depth = generator.uniform(0.3, 0.9), generator.uniform(5.0, 20.0)
    angle = generator.uniform(-math.pi, math.pi) if generator.random() < _FAT else 0.0
    inside = np.stack([binary_fill_holes(image > 2 * _DARK) for image in magnitude])
    near = np.stack([distance_transform_edt(image, sampling=pixel_size) for image in inside]) < depth
    return (angle * near * np.clip((magnitude - threshold) / 0.1, 0.0, 1.0)).astype(np.float32)


def _draw_coils(
    generator: np.random.Generator, num_coils: int, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw coil maps of loops around the field of view, or a part of the way.

    Return them with root sum of squares 1, and that root, (rows, columns), over its median. The square that they stand
    around covers the longer side.
    """
    size = max(rows, columns)
    arc = 2 * math.pi * generator.uniform(0.6, 1.0)
    spacing = arc / num_coils
    angles = generator.uniform(0.0, 2 * math.pi) + spacing * np.arange(num_coils)
    angles = angles + generator.normal(0.0, 0.15 * spacing, num_coils)
    radii = generator.uniform(1.2, 2.4) * np.maximum(generator.normal(1.0, 0.08, num_coils), 0.9)
    gains = np.exp(generator.normal(0.0, 0.2, num_coils) + 1j * generator.uniform(-math.pi, math.pi, num_coils))
    maps = gains[:, None, None] * birdcage_maps(angles, radii, size)
    maps = _centred(maps, (rows, columns))
    root_sum_of_squares = np.linalg.norm(maps, axis=0)
    relative = np.minimum(root_sum_of_squares / np.median(root_sum_of_squares), _BRIGHTEST).astype(np.float32)
    return (maps / root_sum_of_squares).astype(np.complex64), relative


# ---- Files


def write_simulated(
    images: Path,
    output: Path,
    *,
    seed: int,
    acquisition: Acquisition | None = None,
    repeats: int = 1,
    subject: str = r"sub-[A-Za-z0-9]+",
    held_out: dict[str, list[str]] | None = None,
) -> dict[str, list[Path]]:
    """Write volumes of all images of a folder as fastMRI files; return their paths by part.

    The parts are the folders ``training``, ``validation`` and ``test`` of ``output``, and a subject is in one of them
    alone. Who a subject is: the patient whom a DICOM file names, else what ``subject``, a regular expression, finds in
    the path, else the first folder below ``images``, else the file. ``held_out`` names the subjects of validation and
    test; without it each gets a tenth of them, one at least. Of every series as many volumes are drawn as its slices
    fill, ``repeats`` times. A file depends on the seed, its series and the number of the draw alone.

    Beside fastMRI's own entries a file holds ``simulated_image`` and ``simulated_sensitivity_map``, and the attributes
    ``synthetic``, ``source``, ``source_sha256``, ``subject``, ``seed`` and what was drawn.

    Raises
    ------
    DeepenError
        For numbers out of range, images that cannot be read, fewer than three subjects, or one held out who is not
        there.
    """
    require_count("repeats", repeats)
    require_count("seed", seed, least=0)
    require(output.is_dir() or not output.exists(), f"{output}: a file; allowed: a folder")
    require(
        not output.resolve().is_relative_to(images.resolve()), f"{output}: lies in {images}; allowed: another folder"
    )
    acquisition = acquisition or Acquisition()
    by_subject: dict[str, list[ImageSeries]] = defaultdict(list)
    for series in read_series(images):
        by_subject[_subject(series, images, subject)].append(series)
    parts = _split(sorted(by_subject), held_out, seed)
    written: dict[str, list[Path]] = {part: [] for part in ("training", "validation", "test")}
    for series, name in progress_bar(
        list(chain.from_iterable(((series, name) for series in found) for name, found in by_subject.items())),
        name="simulation", unit="series",
    ):  # fmt: skip
        stem = _stem(series, images, [other for other in by_subject[name] if other.source == series.source])
        count = max(1, len(series.images) // acquisition.num_slices) * repeats
        for draw in range(count):
            digits = [int(digit) for digit in sha256(stem.encode()).digest()[:8]]
            volume = simulate_volume(series, np.random.default_rng([seed, draw, *digits]), acquisition)
            path = output / parts[name] / f"{stem}_{draw:03d}.h5"
            _write(path, volume, series, images, {"subject": name, "seed": seed, "draw": draw})
            written[parts[name]].append(path)
    return written


def _subject(series: ImageSeries, images: Path, pattern: str) -> str:
    relative = series.source.relative_to(images)
    try:
        found = re.search(pattern, str(relative))
    except re.error as error:
        raise DeepenError(f"subject is {pattern!r}: {error}; allowed: a regular expression") from error
    if series.patient is not None:
        return series.patient
    if found is not None:
        return found[1] if found.groups() else found[0]
    return relative.parts[0].split(".")[0] if relative.parts else images.name


def _stem(series: ImageSeries, images: Path, siblings: list[ImageSeries]) -> str:
    name = "-".join(series.source.relative_to(images).parts) or images.name
    name = re.sub(r"\.(nii|nii\.gz|npy|npz)$", "", name)
    return name if len(siblings) == 1 else f"{name}-{next(i for i, one in enumerate(siblings) if one is series)}"


def _split(subjects: list[str], held_out: dict[str, list[str]] | None, seed: int) -> dict[str, str]:
    """Return the part that each subject is in."""
    if held_out is None:
        require(
            len(subjects) >= 3,
            f"found {len(subjects)} subjects ({', '.join(subjects)}); allowed: three or more, for "
            "training, validation and test, or names of those held out; --subject tells who is who",
        )
        drawn = list(np.random.default_rng(seed).permutation(subjects))
        count = max(1, len(subjects) // 10)
        held_out = {"validation": drawn[:count], "test": drawn[count : 2 * count]}
    parts = dict.fromkeys(subjects, "training")
    for part, names in held_out.items():
        for name in names:
            require(
                parts.get(name) == "training",
                f"{part} subject is {name!r}, which is not there, or named twice; allowed: {', '.join(subjects)}",
            )
            parts[name] = part
    return parts


def _write(
    path: Path, volume: SimulatedVolume, series: ImageSeries, images: Path, attributes: dict[str, str | int]
) -> None:
    digest = sha256(np.ascontiguousarray(series.images).tobytes()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_fastmri_volume(
        path,
        volume.kspace,
        attributes={
            "acquisition": "SIMULATED",
            "patient_id": str(attributes["subject"]),
            "synthetic": "phase, coils and noise by direct-deepen; magnitude of `source`",
            "source": str(series.source.relative_to(images)),
            "source_sha256": digest,
            "pixel_height_mm": volume.pixel_size[0],
            "pixel_width_mm": volume.pixel_size[1],
            **attributes,
            **volume.drawn,
        },
        datasets={"simulated_image": volume.image, "simulated_sensitivity_map": volume.sensitivity_map},
    )
