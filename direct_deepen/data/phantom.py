r"""Brain phantom: multi-coil k-space of heads that never were, all of them the MNI152 anatomy bent into new shapes.

The ICBM 152 average brain [1]_, which nilearn carries in its wheel, gives the folded cortex, the deep nuclei and the
ventricles. Around them lie, by the distance from the brain's outline, subarachnoid fluid, the two tables of the skull
with marrow between, scalp fat and skin. Each volume draws its own slab of slices, pose, deformation, width of sulci,
tissue contrast (like that of a T2-weighted spin echo), lesions, texture, bias field, image phase and coils. It stands
in for data, it does not replace it: every head has the folds of one anatomy.

Every random number but the k-space noise is drawn before the matrix size matters, so that equal generators draw the
same head at every size.

References
----------
.. [1] V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54, 2011.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.scale import full_sampling_scale
from direct_deepen.progress import progress_bar

DEFAULT_NOISE_STD = 0.007
"""Standard deviation of the k-space noise, per real component, in units of the intensity scale."""

SMALLEST_SIZE = 32
"""Rows and columns below which nothing of a brain is left to see."""

_RAW_UNIT = 1e-4
_LOWEST_SLICE, _HIGHEST_SLICE = -12.0, 56.0
"""Axial range in mm of MNI space: from the midbrain, above the eyes that the templates lack, to below the vertex."""
_SLICE_SPACINGS = (3.0, 5.0)
_BRAIN_MIDDLE = (0.0, -18.0)
"""Middle of the brain (x, y) in mm of MNI space."""
_SAMPLE_SPACING = 1.2
"""About the spacing in mm at which the anatomy is sampled before it is averaged over pixels: the templates' detail."""


@dataclass(frozen=True)
class PhantomVolume:
    """A synthetic volume with everything that made it.

    Attributes
    ----------
    image
        Noise-free image, complex64 (slices, height, width), in an arbitrary raw unit.
    sensitivity_map
        Coil maps, complex64 (coils, height, width), root sum of squares 1 everywhere, the same for all slices.
    kspace
        Noisy k-space, complex64 (slices, coils, height, width), in the unit of ``image``.
    noise_std
        Standard deviation of the noise per real component of ``kspace``, in the unit of ``kspace``.
    """

    image: np.ndarray
    sensitivity_map: np.ndarray
    kspace: np.ndarray
    noise_std: float


def brain_volume(
    generator: np.random.Generator,
    *,
    num_slices: int,
    size: int,
    num_coils: int,
    noise_std: float = DEFAULT_NOISE_STD,
) -> PhantomVolume:
    """Draw one head and acquire a slab of it.

    Parameters
    ----------
    generator
        Source of every random number.
    num_slices
        Neighbouring axial slices, at least 1.
    size
        Rows and columns, at least :data:`SMALLEST_SIZE`.
    num_coils
        Receive coils, at least 1.
    noise_std
        Standard deviation per real component of the k-space noise, in units of the median over slices of
        :func:`~direct_deepen.physics.scale.full_sampling_scale` of the noise-free k-space.

    Returns
    -------
    The volume. Its k-space is the centred orthonormal Fourier transform of coil maps times image, plus the noise.

    Raises
    ------
    DeepenError
        If a number is out of range, or nilearn, which brings the anatomy, is not installed.
    """
    _require_volume(num_slices=num_slices, size=size, num_coils=num_coils, noise_std=noise_std)
    templates = _load_templates()
    appearance = _draw_appearance(generator)
    pose = _draw_pose(generator, num_slices)
    # The layers' thickness varies by a fifth about its mean.
    view = _draw_view(generator, templates, pose, head_margin=1.2 * sum(appearance.thickness))
    lesions = _draw_lesions(generator, templates, pose)
    phase = _draw_phase(generator)
    gain = _RAW_UNIT * math.exp(generator.uniform(math.log(0.5), math.log(2.0)))

    image = np.empty((num_slices, size, size), dtype=np.complex64)
    for index, depth in enumerate(pose.depths):
        magnitude = gain * _render_magnitude(templates, pose, view, appearance, lesions, depth, size)
        image[index] = magnitude * np.exp(1j * phase.at(*view.plane(depth, size)))

    return acquire(image, generator, num_coils=num_coils, noise_std=noise_std)


def acquire(
    image: np.ndarray, generator: np.random.Generator, *, num_coils: int, noise_std: float = DEFAULT_NOISE_STD
) -> PhantomVolume:
    """Measure any image as :func:`brain_volume` measures its heads: drawn coils, Fourier transform, noise.

    Parameters
    ----------
    image
        Noise-free slices, complex64 (slices, size, size).
    generator
        Source of every random number.
    num_coils, noise_std
        As for :func:`brain_volume`.
    """
    sensitivity_map = _draw_coils(generator, num_coils, image.shape[-1])
    kspace = fft2(torch.from_numpy(image[:, None] * sensitivity_map)).numpy()
    raw_noise_std = noise_std * float(full_sampling_scale(torch.from_numpy(kspace)).median())
    noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += np.float32(raw_noise_std) * noise
    return PhantomVolume(image=image, sensitivity_map=sensitivity_map, kspace=kspace, noise_std=raw_noise_std)


def write_phantoms(
    output: Path,
    *,
    num_volumes: int,
    num_slices: int,
    size: int,
    num_coils: int,
    seed: int,
    noise_std: float = DEFAULT_NOISE_STD,
    prefix: str = "phantom",
) -> list[Path]:
    """Write phantom volumes as fastMRI files.

    Volume ``i`` of seed ``k`` comes from ``np.random.default_rng([k, i])`` alone, however many volumes are written.

    Parameters
    ----------
    output
        Folder, made if missing. Files of the same names are replaced.
    num_volumes
        Number of files, at least 1.
    num_slices, size, num_coils, noise_std
        As for :func:`brain_volume`.
    seed
        At least 0. Give training, validation and test sets seeds of their own.
    prefix
        First part of the file names ``{prefix}_{seed:03d}_{volume:03d}.h5``.

    Returns
    -------
    Paths of the files. Beside fastMRI's own entries they hold the datasets ``phantom_image`` (slices, height, width)
    and ``phantom_sensitivity_map`` (coils, height, width), and the attributes ``synthetic``, ``seed``, ``volume``,
    ``noise_std`` (in units of the intensity scale) and ``kspace_noise_std`` (in the unit of ``kspace``).

    Raises
    ------
    DeepenError
        If a number is out of range, ``output`` is a file, ``prefix`` is no file name, or nilearn is not installed.
    """
    _require_volume(num_slices=num_slices, size=size, num_coils=num_coils, noise_std=noise_std)
    require(num_volumes >= 1, f"num_volumes is {num_volumes}; allowed: integers >= 1")
    require(seed >= 0, f"seed is {seed}; allowed: integers >= 0")
    require(
        prefix not in ("", ".", "..") and Path(prefix).name == prefix,
        f"prefix is {prefix!r}; allowed: the first part of a file name, without folders",
    )
    require(output.is_dir() or not output.exists(), f"output is {str(output)!r}, a file; allowed: a folder")
    # Before anything is drawn, so that a missing nilearn leaves no empty folder behind.
    _load_templates()
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in progress_bar(range(num_volumes), name="phantoms", unit="volume"):
        volume = brain_volume(
            np.random.default_rng([seed, index]),
            num_slices=num_slices,
            size=size,
            num_coils=num_coils,
            noise_std=noise_std,
        )
        path = output / f"{prefix}_{seed:03d}_{index:03d}.h5"
        write_fastmri_volume(
            path,
            volume.kspace,
            attributes={
                "acquisition": "SYNTHETIC_T2",
                "synthetic": "brain phantom by direct-deepen; anatomy: MNI ICBM 152 2009a",
                "seed": seed,
                "volume": index,
                "noise_std": noise_std,
                "kspace_noise_std": volume.noise_std,
            },
            datasets={"phantom_image": volume.image, "phantom_sensitivity_map": volume.sensitivity_map},
        )
        paths.append(path)
    return paths


def _require_volume(*, num_slices: int, size: int, num_coils: int, noise_std: float) -> None:
    require(num_slices >= 1, f"num_slices is {num_slices}; allowed: integers >= 1")
    require(size >= SMALLEST_SIZE, f"size is {size}; allowed: integers >= {SMALLEST_SIZE}")
    require(num_coils >= 1, f"num_coils is {num_coils}; allowed: integers >= 1")
    require(0.0 <= noise_std < math.inf, f"noise_std is {noise_std!r}; allowed: finite numbers >= 0")


# ---- Anatomy --------------------------------------------------------------------------------------------------------

_OUTLINE_SPACING, _OUTLINE_MARGIN = 2, 30
"""Grid spacing of the brain's outline, and how far its grid reaches beyond the templates', in mm."""


@dataclass(frozen=True)
class _Templates:
    """The average brain on grids that start at ``origin``.

    Attributes
    ----------
    tissues
        Grey matter and white matter (probabilities), and what of the T1-weighted template these two do not explain:
        cubic spline coefficients at 1 mm.
    outline
        Signed distance in mm from the brain's outline; its grid has ``_OUTLINE_SPACING`` and ``_OUTLINE_MARGIN``.
    origin
        Position (3,) of the first sample of ``tissues`` in mm of MNI space.
    """

    tissues: tuple[np.ndarray, np.ndarray, np.ndarray]
    outline: np.ndarray
    origin: np.ndarray


@functools.cache
def _load_templates() -> _Templates:
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise DeepenError(
            "the brain phantom takes its anatomy from nilearn, which is not installed; "
            "install the extra: pip install 'direct-deepen[demo]'"
        ) from error
    loaded = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    grey, white, t1_weighted, mask = (image.get_fdata(dtype=np.float32) for image in loaded)
    tissues = _sharpen(grey), _sharpen(white), _unexplained(t1_weighted, grey, white)
    spline = functools.partial(ndimage.spline_filter, output=np.float32)
    return _Templates(
        tissues=(spline(tissues[0]), spline(tissues[1]), spline(tissues[2])),
        outline=_distance_from_brain(mask > 0.5),
        origin=loaded[0].affine[:3, 3].astype(np.float32),
    )


def _sharpen(probability: np.ndarray) -> np.ndarray:
    """Bring out the folds that averaging over people blurred: unsharp masking, 0.5 mm against 2.5 mm."""
    fine = ndimage.gaussian_filter(probability, sigma=0.5)
    return fine + 0.6 * (fine - ndimage.gaussian_filter(probability, sigma=2.5))


def _unexplained(t1_weighted: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Return what the tissue shares leave of the T1-weighted brain, scaled to unit variance: iron, myelin in tracts.

    Both shorten T1 and T2, so the same structures show, inverted, in a T2-weighted image.
    """
    brain = grey + white > 0.5
    shares = np.stack([grey[brain], white[brain], 1 - grey[brain] - white[brain]], axis=1)
    intensities = np.linalg.solve(shares.T @ shares, shares.T @ t1_weighted[brain])
    rest = np.zeros_like(t1_weighted)
    rest[brain] = t1_weighted[brain] - shares @ intensities
    return rest / rest[brain].std()


def _distance_from_brain(mask: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain's outline, fissures bridged, negative inside, from a 1 mm (x, y, z) mask."""
    coarse = np.pad(mask, _OUTLINE_MARGIN)[::_OUTLINE_SPACING, ::_OUTLINE_SPACING, ::_OUTLINE_SPACING]
    bridge = 12.0 / _OUTLINE_SPACING
    dilated = ndimage.distance_transform_edt(~coarse) < bridge
    closed = ndimage.distance_transform_edt(dilated) > bridge
    signed = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    return ndimage.gaussian_filter(_OUTLINE_SPACING * signed.astype(np.float32), sigma=5.0 / _OUTLINE_SPACING)


# ---- Smooth random fields -------------------------------------------------------------------------------------------

type _Plane = tuple[float, np.ndarray, np.ndarray]
"""A grid of points in mm from the slab's middle: one depth (up), rows (down) and columns (right)."""

_FIELD_EXTENT = (90.0, 320.0, 320.0)
"""Depth, height and width in mm that a field covers, about its middle: more than any slab and field of view."""


@dataclass(frozen=True)
class _SmoothField:
    """Random function of space, mean 0 and variance about 1: a cubic B-spline with independent normal coefficients."""

    coefficients: np.ndarray
    spacing: float

    def at(self, depth: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Values (rows, columns) on the plane at ``depth``; all positions in mm from the field's middle."""
        positions = (np.array([depth], dtype=np.float32), rows, columns)
        along_depth, along_rows, along_columns = (
            _spline_basis(position / self.spacing + (size - 3) / 2, size)
            for position, size in zip(positions, self.coefficients.shape, strict=True)
        )
        plane = np.tensordot(along_depth[0], self.coefficients, axes=1)
        return along_rows @ plane @ along_columns.T


def _draw_field(generator: np.random.Generator, spacing: float) -> _SmoothField:
    """Draw a field with knots ``spacing`` mm apart."""
    shape = tuple(math.ceil(extent / spacing) + 3 for extent in _FIELD_EXTENT)
    # ∫β³(t)² dt = 151/315: what the spline of one axis leaves, on average, of the coefficients' variance.
    deviation = (315 / 151) ** (len(shape) / 2)
    return _SmoothField(np.float32(deviation) * generator.standard_normal(shape, dtype=np.float32), spacing)


def _spline_basis(positions: np.ndarray, size: int) -> np.ndarray:
    """Cubic B-splines (positions, size) at ``positions`` counted in knots, held at the ends."""
    inside = np.clip(positions, 0.0, size - 3 - 1e-3)
    knot = inside.astype(int)
    t = (inside - knot).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = np.zeros((len(positions), size), dtype=np.float32)
    for offset, weight in enumerate(weights):
        basis[np.arange(len(positions)), knot + offset] = weight / 6
    return basis


# ---- What a volume draws --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Appearance:
    """Tissue intensities (fluid is about 1), thickness of the layers around the brain, and what varies them in space.

    Attributes
    ----------
    sharpness
        Exponent on the tissue probabilities, which narrows their borders.
    fluid_excess
        Added to the logarithm of the fluid's probability: above zero widens sulci and ventricles.
    myelin
        Relative darkening by one standard deviation of the iron and myelin pattern.
    thickness
        Subarachnoid fluid, skull, and scalp in mm.
    layers
        Logarithmic variation of ``thickness``.
    patches, grain
        Coarse and fine texture of the brain; ``flesh`` is the scalp's.
    """

    fluid: float
    grey: float
    white: float
    bone: float
    marrow: float
    fat: float
    skin: float
    sharpness: float
    fluid_excess: float
    myelin: float
    bias_strength: float
    thickness: tuple[float, float, float]
    layers: tuple[_SmoothField, _SmoothField, _SmoothField]
    sulci: _SmoothField
    cortex: _SmoothField
    patches: _SmoothField
    grain: _SmoothField
    flesh: _SmoothField
    bias: _SmoothField


@dataclass(frozen=True)
class _Pose:
    """Where a point of the scanner lies in MNI space.

    Attributes
    ----------
    centre
        Point of MNI space (3,) in the middle of the slab, mm.
    turn
        Matrix (3, 3) from the scanner's right, front and up to MNI space: rotation and stretch.
    depths
        Height of each slice above the middle of the slab, mm.
    bends
        Displacements along the three axes in mm: of the whole head, and finer ones of the brain alone.
    """

    centre: np.ndarray
    turn: np.ndarray
    depths: np.ndarray
    bends: tuple["_Bend", "_Bend"]


@dataclass(frozen=True)
class _View:
    """The square field of view: its side, and its middle (down, right) from the slab's middle, in mm."""

    side: float
    middle: np.ndarray

    def plane(self, depth: float, size: int) -> _Plane:
        """``depth``, and the positions (size,) of an image's rows and columns, in mm from the slab's middle."""
        along = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * self.side
        return depth, along + self.middle[0], along + self.middle[1]


@dataclass(frozen=True)
class _Bend:
    """A smooth displacement: ``amplitude`` in mm times one field for each axis."""

    amplitude: float
    axes: tuple[_SmoothField, _SmoothField, _SmoothField]


@dataclass(frozen=True)
class _Lesions:
    """Soft, ragged ellipsoids: centres and radii (lesions, 3) in mm of MNI space, intensities (lesions,)."""

    centres: np.ndarray
    radii: np.ndarray
    intensities: np.ndarray
    outline: _SmoothField


@dataclass(frozen=True)
class _Phase:
    """Image phase in radians: a constant, a gradient in radians per mm (down, right), and a smooth field."""

    constant: float
    gradient: np.ndarray
    strength: float
    field: _SmoothField

    def at(self, depth: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Phase (rows, columns) on the plane at ``depth``."""
        linear = self.constant + self.gradient[0] * rows[:, None] + self.gradient[1] * columns
        return linear + self.strength * self.field.at(depth, rows, columns)


def _draw_appearance(generator: np.random.Generator) -> _Appearance:
    uniform, field = generator.uniform, functools.partial(_draw_field, generator)
    grey = uniform(0.50, 0.64)
    return _Appearance(
        fluid=uniform(0.9, 1.1),
        grey=grey,
        white=grey * uniform(0.56, 0.76),
        bone=uniform(0.015, 0.05),
        marrow=uniform(0.12, 0.35),
        fat=uniform(0.4, 0.8),
        skin=uniform(0.2, 0.35),
        sharpness=uniform(1.5, 2.1),
        fluid_excess=generator.normal(0.15, 0.3),
        myelin=uniform(0.03, 0.07),
        bias_strength=uniform(0.03, 0.12),
        thickness=(uniform(1.5, 3.0), uniform(5.0, 7.5), uniform(4.0, 6.5)),
        layers=(field(60.0), field(60.0), field(60.0)),
        sulci=field(25.0),
        cortex=field(25.0),
        patches=field(25.0),
        grain=field(3.5),
        flesh=field(12.0),
        bias=field(110.0),
    )


def _draw_pose(generator: np.random.Generator, num_slices: int) -> _Pose:
    thickest = (_HIGHEST_SLICE - _LOWEST_SLICE) / max(num_slices - 1, 1)
    depths = min(generator.uniform(*_SLICE_SPACINGS), thickest) * (np.arange(num_slices) - (num_slices - 1) / 2)
    level = generator.uniform(_LOWEST_SLICE - depths[0], _HIGHEST_SLICE - depths[-1])

    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(generator.normal(0.0, (4.0, 2.0, 4.0)))):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        about_axis = np.eye(3)
        about_axis[[first, second], [first, second]] = math.cos(angle)
        about_axis[first, second], about_axis[second, first] = -math.sin(angle), math.sin(angle)
        turn = turn @ about_axis
    stretch = generator.normal(1.0, (0.05, 0.05, 0.04))

    def bend(amplitude: float, spacing: float) -> _Bend:
        x, y, z = (_draw_field(generator, spacing) for _ in range(3))
        return _Bend(amplitude, (x, y, z))

    return _Pose(
        centre=np.array([*_BRAIN_MIDDLE, level], dtype=np.float32),
        turn=(turn / stretch).astype(np.float32),
        depths=depths.astype(np.float32),
        bends=(bend(3.0, 75.0), bend(1.8, 20.0)),
    )


def _draw_view(generator: np.random.Generator, templates: _Templates, pose: _Pose, head_margin: float) -> _View:
    """Draw a field of view that holds the head, which reaches ``head_margin`` mm beyond the brain, in every slice."""
    spacing = 4.0
    probe = np.arange(-150.0, 151.0, spacing, dtype=np.float32)
    planes = [(float(depth), probe, probe) for depth in pose.depths]
    head = np.any([_beyond_brain(templates, _places(pose, plane)[0]) < head_margin for plane in planes], axis=0)
    limits = np.array([probe[np.flatnonzero(head.any(axis=1 - axis))[[0, -1]]] for axis in range(2)])
    # On either side the outline lies up to one spacing beyond the last probe inside.
    extent, middle = limits[:, 1] - limits[:, 0] + 2 * spacing, limits.mean(axis=1)
    # The extent errs upwards by some 4 %: the head itself fills about 70 to 95 %.
    side = float(extent.max() / generator.uniform(0.74, 0.96))
    room = np.maximum(0.95 * side - extent, 0.0) / 2
    offset = generator.uniform(-1.0, 1.0, 2) * np.minimum(room, 0.04 * side)
    return _View(side=side, middle=(middle + offset).astype(np.float32))


def _draw_lesions(generator: np.random.Generator, templates: _Templates, pose: _Pose) -> _Lesions:
    """Draw no lesion (one head in four) or a few in the white matter of the slab, mostly small and bright."""
    count = 1 + generator.poisson(3.5) if generator.random() < 0.75 else 0
    levels = pose.centre[2] + np.array([pose.depths[0] - 3, pose.depths[-1] + 3]) - templates.origin[2]
    lowest, highest = np.rint(levels).astype(int)
    # Where white matter prevails, its spline coefficients differ little from the probability.
    places = np.argwhere(templates.tissues[1][:, :, lowest : highest + 1] > 0.7)
    centres = places[generator.integers(len(places), size=count)] + np.array([0, 0, lowest]) + templates.origin
    size = np.exp(generator.normal(math.log(3.0), 0.55, count)).clip(1.5, 14.0)
    bright, dark = generator.uniform(0.7, 1.1, count), generator.uniform(0.15, 0.35, count)
    is_dark = generator.random(count) < 0.1
    # Dark ones are bleeds and calcifications, which are small; a large one would pass for a hole in the image.
    size = np.where(is_dark, np.minimum(size, 3.0), size)
    return _Lesions(
        centres=centres.astype(np.float32),
        radii=(size[:, None] * generator.uniform(0.7, 1.4, (count, 3))).astype(np.float32),
        intensities=np.where(is_dark, dark, bright).astype(np.float32),
        outline=_draw_field(generator, 6.0),
    )


def _draw_phase(generator: np.random.Generator) -> _Phase:
    return _Phase(
        constant=generator.uniform(-math.pi, math.pi),
        gradient=generator.normal(0.0, 0.008, 2).astype(np.float32),
        strength=generator.uniform(0.4, 1.0),
        field=_draw_field(generator, 80.0),
    )


def _draw_coils(generator: np.random.Generator, num_coils: int, size: int) -> np.ndarray:
    """Coil maps (coils, size, size), complex64, of loops around the field of view; root sum of squares 1."""
    ring = 2 * math.pi * np.arange(num_coils) / num_coils
    jitter = generator.normal(0.0, 0.1 * 2 * math.pi / num_coils, num_coils)
    angles = ring + generator.uniform(0.0, 2 * math.pi) + jitter
    radii = generator.uniform(1.5, 2.2) * generator.normal(1.0, 0.03, num_coils)
    gains = np.exp(generator.normal(0.0, 0.1, num_coils) + 1j * generator.normal(0.0, 0.3, num_coils))
    maps = gains[:, None, None] * _birdcage_maps(angles, radii, size)
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def _birdcage_maps(angles: np.ndarray, radii: np.ndarray, size: int) -> np.ndarray:
    """Coil maps (coils, size, size) of loops at ``angles`` and ``radii`` in units of half the field of view.

    This is sigpy's ``birdcage_maps`` before its normalisation, as a function of the coils' places, because sigpy's ring
    can be neither turned nor disturbed. In complex numbers the map of a coil at angle θ is exp(-iθ) / conj(z), with z
    the pixel's place seen from the coil.
    """
    side = (np.arange(size) - size / 2) / (size / 2)
    right = side[None, None, :] - (radii * np.cos(angles))[:, None, None]
    down = side[None, :, None] - (radii * np.sin(angles))[:, None, None]
    return np.exp(-1j * angles)[:, None, None] / (-down - 1j * right)


# ---- Drawing the image ----------------------------------------------------------------------------------------------


def _render_magnitude(
    templates: _Templates,
    pose: _Pose,
    view: _View,
    appearance: _Appearance,
    lesions: _Lesions,
    depth: float,
    size: int,
) -> np.ndarray:
    """Magnitude (size, size) of the slice at ``depth``: the anatomy sampled finely and averaged over each pixel."""
    finer = max(2, round(view.side / size / _SAMPLE_SPACING))
    plane = view.plane(depth, size * finer)
    head, brain = _places(pose, plane)
    fluid, skull, scalp = (
        thickness * np.exp(0.2 * layer.at(*plane))
        for thickness, layer in zip(appearance.thickness, appearance.layers, strict=True)
    )
    beyond_fluid = _beyond_brain(templates, head) - fluid
    magnitude = _shell(appearance, plane, beyond_fluid, skull, scalp)
    inside = beyond_fluid < 2.0
    tissue = _brain_tissue(templates, appearance, lesions, plane, brain, inside)
    magnitude[inside] += _step(-beyond_fluid[inside], 1.0) * (tissue - magnitude[inside])
    magnitude *= np.exp(appearance.bias_strength * appearance.bias.at(*plane))
    return magnitude.reshape(size, finer, size, finer).mean(axis=(1, 3))


def _places(pose: _Pose, plane: _Plane) -> tuple[np.ndarray, np.ndarray]:
    """Points (3, rows, columns) of MNI space in mm that the plane shows, of the head and of the brain inside it."""
    depth, rows, columns = plane
    front, right = np.meshgrid(-rows, columns, indexing="ij")
    place = np.tensordot(pose.turn, np.stack([right, front, np.full_like(right, depth)]), axes=1)
    head = place + pose.centre[:, None, None] + _displacement(pose.bends[0], plane)
    return head, head + _displacement(pose.bends[1], plane)


def _beyond_brain(templates: _Templates, places: np.ndarray) -> np.ndarray:
    """Distance in mm (rows, columns) from the brain's outline, negative inside, at ``places`` (3, rows, columns)."""
    start = (templates.origin - _OUTLINE_MARGIN)[:, None, None]
    return ndimage.map_coordinates(
        templates.outline,
        (places - start) / _OUTLINE_SPACING,
        order=1,  # the distance is too smooth for a cubic spline to differ
        mode="nearest",
        output=np.float32,
    )


def _displacement(bend: _Bend, plane: _Plane) -> np.ndarray:
    return bend.amplitude * np.stack([axis.at(*plane) for axis in bend.axes])


def _shell(
    appearance: _Appearance,
    plane: _Plane,
    beyond_fluid: np.ndarray,
    skull: np.ndarray,
    scalp: np.ndarray,
) -> np.ndarray:
    """Magnitude of bone, marrow, fat and skin, ``beyond_fluid`` mm out from the skull's inner side, and of the air."""
    beyond_skull, beyond_skin = beyond_fluid - skull, beyond_fluid - skull - scalp
    fat = appearance.fat * (1 + 0.2 * appearance.flesh.at(*plane))
    in_marrow = _step(0.28 * skull - np.abs(beyond_fluid - 0.5 * skull), 1.2)
    magnitude = appearance.bone + in_marrow * (appearance.marrow - appearance.bone)
    magnitude += _step(beyond_skull, 1.0) * (fat - magnitude)
    magnitude += _step(beyond_skin + 1.8, 1.0) * (appearance.skin - magnitude)
    return magnitude * _step(-beyond_skin, 0.8)


def _brain_tissue(
    templates: _Templates,
    appearance: _Appearance,
    lesions: _Lesions,
    plane: _Plane,
    brain: np.ndarray,
    inside: np.ndarray,
) -> np.ndarray:
    """Magnitude of fluid, grey matter, white matter and lesions at those places ``brain`` that are ``inside``."""
    places = brain[:, inside]
    voxels = places - templates.origin[:, None]
    grey, white, myelin = (
        ndimage.map_coordinates(tissue, voxels, prefilter=False, mode="nearest", output=np.float32)
        for tissue in templates.tissues
    )
    grey, white = grey.clip(0.0, 1.0), white.clip(0.0, 1.0)
    fluid = (1.0 - grey - white).clip(0.0, 1.0)
    # The factors move the borders (wide or narrow sulci, thick or thin cortex); the power narrows them.
    fluid = fluid * np.exp(appearance.fluid_excess + 0.3 * appearance.sulci.at(*plane)[inside])
    grey = grey * np.exp(0.15 * appearance.cortex.at(*plane)[inside])
    fluid, grey, white = (share**appearance.sharpness for share in (fluid, grey, white))

    patches, grain = (field.at(*plane)[inside] for field in (appearance.patches, appearance.grain))
    matter = grey * appearance.grey * (1 + 0.04 * patches) + white * appearance.white * (1 - 0.04 * patches)
    matter *= 1 + 0.025 * grain - appearance.myelin * myelin
    tissue = (matter + fluid * appearance.fluid) / (grey + white + fluid + 1e-6)

    ragged = 0.35 * lesions.outline.at(*plane)[inside]
    for centre, radii, intensity in zip(lesions.centres, lesions.radii, lesions.intensities, strict=True):
        depth_inside = 1 - np.linalg.norm((places - centre[:, None]) / radii[:, None], axis=0) + ragged
        tissue += expit(6 * depth_inside) * (intensity - tissue)
    return tissue


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """Soft step from 0 to 1 where ``distance`` turns positive, about ``width`` wide (both in mm)."""
    return expit(distance * (4 / width))
