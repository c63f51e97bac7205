r"""Brain phantom: multi-coil k-space of heads that never were, all of them the MNI152 anatomy bent into new shapes.

The grey and white matter of the ICBM 152 average brain [1]_, which nilearn carries in its wheel, give the folded cortex,
the deep nuclei and the ventricles. Around them lie, by the distance from the brain's outline, subarachnoid fluid, the
two tables of the skull with marrow between, scalp fat and skin. Each volume draws its own slab of slices, pose,
deformation, width of sulci, tissue contrast (like that of a T2-weighted spin echo), lesions, texture, bias field, image
phase and coils. It stands in for data, it does not replace it: every head has the folds of one anatomy.

All random numbers but the k-space noise are drawn before the matrix size matters, so one generator draws the same head
at every size.

References
----------
.. [1] V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54, 2011.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit
from tqdm import tqdm

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.scale import full_sampling_scale

DEFAULT_NOISE_STD = 0.007
"""Standard deviation of the k-space noise, per real component, over the intensity scale."""

SMALLEST_SIZE = 32
"""Rows and columns below which nothing of a brain is left to see."""

_RAW_UNIT = 1e-4
_LOWEST_SLICE, _HIGHEST_SLICE = -14.0, 56.0
"""Axial range in mm of the MNI space: from the midbrain, above the eyes that the templates lack, to below the vertex."""
_WIDEST_SLICE_SPACING = 5.0
_OUTLINE_SPACING = 2
_OUTLINE_MARGIN = 30
_FINEST_SAMPLE = 0.9
"""Spacing in mm at which the anatomy is sampled at most, before it is averaged over pixels: the templates' own detail."""


@dataclass(frozen=True)
class PhantomVolume:
    """A synthetic volume with everything that made it.

    Attributes
    ----------
    image
        Noise-free image, complex64 (slices, height, width), in an arbitrary raw unit.
    sensitivity_map
        Coil maps, complex64 (coils, height, width), root sum of squares 1 everywhere.
    kspace
        Noisy k-space, complex64 (slices, coils, height, width), in the unit of ``image``.
    noise_std
        Standard deviation of the noise per real component of ``kspace``, in the unit of ``kspace``.
    """

    image: np.ndarray
    sensitivity_map: np.ndarray
    kspace: np.ndarray
    noise_std: float


@dataclass(frozen=True)
class _Templates:
    """The MNI152 anatomy: cubic spline coefficients of tissue probabilities, and distance from the brain in mm."""

    grey: np.ndarray
    white: np.ndarray
    myelin: np.ndarray
    outline: np.ndarray
    origin: np.ndarray


@functools.cache
def _load_templates() -> _Templates:
    try:
        from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ModuleNotFoundError as error:
        raise DeepenError(
            "the brain phantom takes its anatomy from nilearn, which is missing; "
            "install the extra: pip install 'direct-deepen[demo]'"
        ) from error
    grey = load_mni152_gm_template(resolution=1)
    white = load_mni152_wm_template(resolution=1)
    mask = load_mni152_brain_mask(resolution=1)
    return _Templates(
        grey=_crisp(grey.get_fdata(dtype=np.float32)),
        white=_crisp(white.get_fdata(dtype=np.float32)),
        myelin=ndimage.spline_filter(_residual(load_mni152_template(resolution=1).get_fdata(dtype=np.float32),grey.get_fdata(dtype=np.float32),white.get_fdata(dtype=np.float32)), output=np.float32),
        outline=ndimage.spline_filter(_distance_from_brain(mask.get_fdata(dtype=np.float32) > 0.5), output=np.float32),
        origin=grey.affine[:3, 3].astype(np.float32),
    )


def _residual(t1, grey, white):
    brain = (grey + white) > 0.5
    columns = np.stack([grey[brain], white[brain], 1 - grey[brain] - white[brain]], axis=1)
    gram = columns.T @ columns
    coefficients = np.linalg.solve(gram, columns.T @ t1[brain])
    print(coefficients)
    out = np.zeros_like(t1)
    out[brain] = t1[brain] - columns @ coefficients
    print(out[brain].std(), np.percentile(out[brain],[1,99]))
    return out / out[brain].std()


def _crisp(probability: np.ndarray) -> np.ndarray:
    """Spline coefficients of a tissue probability whose folds, blurred by averaging over people, stand out again."""
    smooth = ndimage.gaussian_filter(probability, sigma=0.5)
    crisp = smooth + 0.6 * (smooth - ndimage.gaussian_filter(probability, sigma=2.5))
    return ndimage.spline_filter(crisp, output=np.float32)


def _distance_from_brain(mask: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain's outline, sulci and fissures bridged, on a coarser and wider grid.

    Parameters
    ----------
    mask
        Boolean (x, y, z) at 1 mm.

    Returns
    -------
    Distance, float32, negative inside; its first sample lies ``_OUTLINE_MARGIN`` mm before the mask's on every axis.
    """
    coarse = np.pad(mask, _OUTLINE_MARGIN)[::_OUTLINE_SPACING, ::_OUTLINE_SPACING, ::_OUTLINE_SPACING]
    bridged_width = 16.0 / _OUTLINE_SPACING
    dilated = ndimage.distance_transform_edt(~coarse) < bridged_width
    closed = ndimage.distance_transform_edt(dilated) > bridged_width
    signed = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    return ndimage.gaussian_filter(_OUTLINE_SPACING * signed.astype(np.float32), sigma=5.0 / _OUTLINE_SPACING)


_FIELD_EXTENT = (90.0, 320.0, 320.0)
"""Depth, height and width in mm that smooth random fields cover: more than any slab and field of view."""


@dataclass(frozen=True)
class _SmoothField:
    """A random function of space with mean 0 and variance about 1: a cubic B-spline with independent coefficients."""

    coefficients: np.ndarray
    spacing: float

    @classmethod
    def draw(cls, generator: np.random.Generator, spacing: float) -> "_SmoothField":
        """Draw a field whose knots are ``spacing`` mm apart."""
        shape = tuple(int(np.ceil(extent / spacing)) + 3 for extent in _FIELD_EXTENT)
        # ∫β³(t)² dt = 151/315 is the mean variance that one axis leaves of the coefficients' own.
        deviation = (315 / 151) ** (len(shape) / 2)
        return cls(deviation * generator.standard_normal(shape, dtype=np.float32), spacing)

    def __call__(self, depth: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Values (rows, columns) on the plane at ``depth``, in mm from the middle of the slab, as the other two are."""
        positions = (np.array([depth], dtype=np.float32), rows, columns)
        along_depth, along_rows, along_columns = (
            _spline_basis(position / self.spacing + (size - 3) / 2, size)
            for position, size in zip(positions, self.coefficients.shape, strict=True)
        )
        plane = np.tensordot(along_depth[0], self.coefficients, axes=1)
        return along_rows @ plane @ along_columns.T


def _spline_basis(positions: np.ndarray, size: int) -> np.ndarray:
    """Cubic B-splines (len(positions), size) at ``positions`` counted in knots, held at the ends."""
    inside = np.clip(positions, 0.0, size - 3 - 1e-3)
    knot = inside.astype(int)
    t = (inside - knot).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = np.zeros((len(positions), size), dtype=np.float32)
    for offset, weight in enumerate(weights):
        basis[np.arange(len(positions)), knot + offset] = weight / 6
    return basis


@dataclass(frozen=True)
class _Pose:
    """Where the slab lies in MNI space and how it is bent: everything that maps a pixel to a place in the anatomy."""

    centre: np.ndarray
    rotation: np.ndarray
    depths: np.ndarray
    field_of_view: float
    offset: np.ndarray
    bends: tuple[tuple[float, tuple[_SmoothField, _SmoothField, _SmoothField]], ...]


@dataclass(frozen=True)
class _Appearance:
    """Tissue intensities, widths of the layers around the brain, and the fields that vary them in space."""

    fluid: float
    grey: float
    white: float
    bone: float
    marrow: float
    fat: float
    skin: float
    sharpness: float
    fluid_share: float
    sulci: _SmoothField
    cortex: _SmoothField
    layers: tuple[_SmoothField, _SmoothField, _SmoothField]
    thickness: tuple[float, float, float]
    patches: _SmoothField
    grain: _SmoothField
    flesh: _SmoothField
    bias: _SmoothField
    bias_strength: float


@dataclass(frozen=True)
class _Lesions:
    """Soft ellipsoids with ragged outlines: centres and radii (lesions, 3) in mm, intensities (lesions,)."""

    centres: np.ndarray
    radii: np.ndarray
    intensities: np.ndarray
    outline: _SmoothField


def _draw_pose(generator: np.random.Generator, templates: _Templates, num_slices: int) -> _Pose:
    spacing = min(
        generator.uniform(3.0, _WIDEST_SLICE_SPACING), (_HIGHEST_SLICE - _LOWEST_SLICE) / max(num_slices - 1, 1)
    )
    depths = spacing * (np.arange(num_slices) - (num_slices - 1) / 2)
    middle = generator.uniform(_LOWEST_SLICE - depths[0], _HIGHEST_SLICE - depths[-1])
    x_angle, y_angle, z_angle = np.deg2rad(generator.normal(0.0, (4.0, 2.0, 4.0)))
    turns = [
        np.array([[1, 0, 0], [0, np.cos(x_angle), -np.sin(x_angle)], [0, np.sin(x_angle), np.cos(x_angle)]]),
        np.array([[np.cos(y_angle), 0, -np.sin(y_angle)], [0, 1, 0], [np.sin(y_angle), 0, np.cos(y_angle)]]),
        np.array([[np.cos(z_angle), -np.sin(z_angle), 0], [np.sin(z_angle), np.cos(z_angle), 0], [0, 0, 1]]),
    ]
    # Columns stretch MNI space along the head's own axes; shear comes with the smooth bends.
    stretch = generator.normal(1.0, (0.05, 0.05, 0.04))
    rotation = turns[0] @ turns[1] @ turns[2] @ np.diag(1 / stretch)

    extent, centre = _head_extent(templates, middle + depths)
    extent = extent * stretch[:2]
    fill = generator.uniform(0.7, 0.93)
    field_of_view = float(extent.max() / fill)
    slack = np.maximum((0.97 * field_of_view - extent) / 2, 0.0)
    offset = generator.uniform(-0.5, 0.5, 2) * np.minimum(slack, 0.06 * field_of_view)
    bends = tuple(
        (amplitude, (draw(spacing), draw(spacing), draw(spacing)))
        for draw in [functools.partial(_SmoothField.draw, generator)]
        for amplitude, spacing in ((3.0, 60.0), (1.8, 20.0))
    )
    return _Pose(
        centre=np.array([*centre, middle], dtype=np.float32),
        rotation=rotation.astype(np.float32),
        depths=depths.astype(np.float32),
        field_of_view=field_of_view,
        offset=offset.astype(np.float32),
        bends=bends,
    )


_HEAD_MARGIN = 14.0


def _head_extent(templates: _Templates, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widest extent and middle (x, y) in mm of the head over the axial slices at ``levels``."""
    spacing, start = _OUTLINE_SPACING, templates.origin - _OUTLINE_MARGIN
    planes = np.unique(((levels - start[2]) / spacing).round().astype(int))
    head = (templates.outline[:, :, planes] < _HEAD_MARGIN).any(axis=2)
    limits = np.array([np.flatnonzero(head.any(axis=1 - axis))[[0, -1]] for axis in range(2)]) * spacing
    return limits[:, 1] - limits[:, 0], limits.mean(axis=1) + start[:2]


def _draw_appearance(generator: np.random.Generator) -> _Appearance:
    uniform, field = generator.uniform, functools.partial(_SmoothField.draw, generator)
    grey = uniform(0.50, 0.64)
    return _Appearance(
        fluid=uniform(0.9, 1.1),
        grey=grey,
        white=grey * uniform(0.60, 0.78),
        bone=uniform(0.015, 0.05),
        marrow=uniform(0.12, 0.35),
        fat=uniform(0.4, 0.8),
        skin=uniform(0.2, 0.35),
        sharpness=uniform(1.5, 2.1),
        fluid_share=generator.normal(0.15, 0.3),
        sulci=field(25.0),
        cortex=field(25.0),
        layers=(field(60.0), field(60.0), field(60.0)),
        thickness=(uniform(1.5, 3.0), uniform(5.0, 7.5), uniform(4.0, 6.5)),
        patches=field(25.0),
        grain=field(3.5),
        flesh=field(12.0),
        bias=field(110.0),
        bias_strength=uniform(0.03, 0.12),
    )


def _draw_lesions(generator: np.random.Generator, templates: _Templates, levels: np.ndarray) -> _Lesions:
    """Draw none (one head in four) or a few lesions in the white matter of the slab."""
    count = int(generator.random() < 0.75) * (1 + generator.poisson(2.5))
    first, last = (np.array([levels[0] - 3, levels[-1] + 3]) - templates.origin[2]).round().astype(int)
    places = np.argwhere(templates.white[:, :, first : last + 1] > 0.6)
    centres = places[generator.integers(len(places), size=count)] + [0, 0, first] + templates.origin
    size = np.exp(generator.normal(np.log(3.0), 0.55, (count, 1))).clip(1.5, 14.0)
    radii = size * generator.uniform(0.7, 1.4, (count, 3))
    bright, dark = generator.uniform(0.7, 1.1, count), generator.uniform(0.1, 0.3, count)
    intensities = np.where(generator.random(count) < 0.9, bright, dark)
    return _Lesions(
        centres.astype(np.float32),
        radii.astype(np.float32),
        intensities.astype(np.float32),
        _SmoothField.draw(generator, 6.0),
    )


def _rising(value: np.ndarray, width: float) -> np.ndarray:
    """Step from 0 to 1 where ``value`` turns positive, ``width`` mm soft."""
    return expit(value * (4 / width))


def _render_slice(
    templates: _Templates, pose: _Pose, appearance: _Appearance, lesions: _Lesions, depth: float, side: np.ndarray
) -> np.ndarray:
    """Magnitude (height, width) at ``depth``, at the positions ``side`` in mm of rows and of columns."""
    rows, columns = side - pose.offset[1], side - pose.offset[0]
    field = functools.partial(_SmoothField.__call__, depth=depth, rows=rows, columns=columns)

    height, width = np.meshgrid(-rows, columns, indexing="ij")
    flat = np.stack([width, height, np.full_like(width, depth)])
    place = np.tensordot(pose.rotation, flat, axes=1) + pose.centre[:, None, None]
    for axis in range(3):
        place[axis] += pose.bends[0][0] * field(pose.bends[0][1][axis])
    outline = ndimage.map_coordinates(
        templates.outline,
        (place - (templates.origin - _OUTLINE_MARGIN)[:, None, None]) / _OUTLINE_SPACING,
        prefilter=False,
        mode="nearest",
        output=np.float32,
    )
    for axis in range(3):
        place[axis] += pose.bends[1][0] * field(pose.bends[1][1][axis])
    look = appearance
    gap, skull, scalp = (
        thickness * np.exp(0.2 * field(layer)) for thickness, layer in zip(look.thickness, look.layers, strict=True)
    )
    beyond_fluid, beyond_skull, beyond_skin = outline - gap, outline - gap - skull, outline - gap - skull - scalp
    marrow = _rising(0.28 * skull - np.abs(beyond_fluid - 0.5 * skull), 1.2)
    magnitude = look.bone + (look.marrow - look.bone) * marrow
    magnitude += _rising(beyond_skull, 1.0) * (look.fat * (1 + 0.2 * field(look.flesh)) - magnitude)
    magnitude += _rising(beyond_skin + 1.8, 1.0) * (look.skin - magnitude)
    magnitude *= _rising(-beyond_skin, 0.8)

    inside = beyond_fluid < 2.0
    voxels = place[:, inside] - templates.origin[:, None]
    grey, white, myelin = (
        ndimage.map_coordinates(tissue, voxels, prefilter=False, mode="nearest", output=np.float32)
        for tissue in (templates.grey, templates.white, templates.myelin)
    )
    grey, white=grey.clip(0,1),white.clip(0,1)
    fluid = (1.0 - grey - white).clip(0.0, 1.0)
    # Powers sharpen the average brain's blurred borders; the factors move them: wide or narrow sulci, thick or thin cortex.
    fluid = (fluid * np.exp(look.fluid_share + 0.3 * field(look.sulci)[inside])) ** look.sharpness
    grey = (grey * np.exp(0.15 * field(look.cortex)[inside])) ** look.sharpness
    white = white**look.sharpness
    patches, grain = field(look.patches)[inside], field(look.grain)[inside]
    brain = grey * look.grey * (1 + 0.05 * patches) + white * look.white * (1 - 0.05 * patches)
    brain = (brain * (1 + 0.025 * grain - 0.06 * myelin) + fluid * look.fluid) / (grey + white + fluid + 1e-6)

    ragged = 0.35 * field(lesions.outline)[inside]
    for centre, radius, intensity in zip(lesions.centres, lesions.radii, lesions.intensities, strict=True):
        within = 1 - np.linalg.norm((place[:, inside] - centre[:, None]) / radius[:, None], axis=0) + ragged
        brain += expit(within * 6) * (intensity - brain)

    magnitude[inside] += _rising(-beyond_fluid[inside], 1.0) * (brain - magnitude[inside])
    return magnitude * np.exp(look.bias_strength * field(look.bias))
