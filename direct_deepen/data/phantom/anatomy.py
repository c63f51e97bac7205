"""The average brain: tissue probabilities and distance from the brain's outline, anywhere in MNI space."""

import functools

import numpy as np
from scipy import ndimage

from direct_deepen.errors import optional_import

_OUTLINE_SPACING, _OUTLINE_MARGIN = 2, 30
"""Grid spacing of the brain's outline, and how far its grid extends beyond the templates', in mm."""


class Templates:
    """The average brain on grids that start at ``origin`` (3,), in mm of MNI space.

    ``tissues`` are the probabilities of grey and white matter, and the part of the T1-weighted template that they do
    not explain, as cubic spline coefficients at 1 mm.
    """

    def __init__(self) -> None:
        with optional_import("demo", "the brain phantom takes its anatomy from nilearn, which is not installed"):
            from nilearn import datasets
        names = "gm_template", "wm_template", "template", "brain_mask"
        loaded = [getattr(datasets, f"load_mni152_{name}")(resolution=1) for name in names]
        grey, white, t1_weighted, mask = (image.get_fdata(dtype=np.float32) for image in loaded)
        tissues = _sharpen(grey), _sharpen(white), _unexplained(t1_weighted, grey, white)
        self.tissues = tuple(ndimage.spline_filter(tissue, output=np.float32) for tissue in tissues)
        self.origin: np.ndarray = loaded[0].affine[:3, 3].astype(np.float32)
        self._outline = _distance_from_brain(mask > 0.5)

    def tissues_at(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """Values of the three ``tissues`` at ``places`` (3, …) in mm of MNI space."""
        voxels = places - self.origin[:, None]
        return tuple(
            ndimage.map_coordinates(tissue, voxels, prefilter=False, mode="nearest", output=np.float32)
            for tissue in self.tissues
        )

    def distance_at(self, places: np.ndarray) -> np.ndarray:
        """Signed distance in mm (rows, columns) from the brain's outline at ``places`` (3, rows, columns)."""
        voxels = (places - (self.origin - _OUTLINE_MARGIN)[:, None, None]) / _OUTLINE_SPACING
        # The distance is too smooth for a cubic spline to differ from linear interpolation.
        return ndimage.map_coordinates(self._outline, voxels, order=1, mode="nearest", output=np.float32)


load_templates = functools.cache(Templates)


def _sharpen(probability: np.ndarray) -> np.ndarray:
    """Recover the folds that averaging over people blurred: unsharp masking, 0.5 mm against 2.5 mm."""
    fine = ndimage.gaussian_filter(probability, sigma=0.5)
    return fine + 0.6 * (fine - ndimage.gaussian_filter(probability, sigma=2.5))


def _unexplained(t1_weighted: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Residual of the T1-weighted brain after regression on the tissues, with unit variance: iron, myelin in tracts.

    Both shorten T1 and T2, so the same structures show, inverted, in a T2-weighted image.
    """
    brain = grey + white > 0.5
    shares = np.stack([grey[brain], white[brain], 1 - grey[brain] - white[brain]], axis=1)
    intensities = np.linalg.solve(shares.T @ shares, shares.T @ t1_weighted[brain])
    rest = np.zeros_like(t1_weighted)
    rest[brain] = t1_weighted[brain] - shares @ intensities
    return rest / rest[brain].std()


def _distance_from_brain(mask: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain's outline, fissures closed, negative inside, from a 1 mm (x, y, z) mask."""
    coarse = np.pad(mask, _OUTLINE_MARGIN)[::_OUTLINE_SPACING, ::_OUTLINE_SPACING, ::_OUTLINE_SPACING]
    radius = 12.0 / _OUTLINE_SPACING
    dilated = ndimage.distance_transform_edt(~coarse) < radius
    closed = ndimage.distance_transform_edt(dilated) > radius
    signed = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    return ndimage.gaussian_filter(_OUTLINE_SPACING * signed.astype(np.float32), sigma=5.0 / _OUTLINE_SPACING)
