"""One head: intensities of its tissues, layers around the brain, lesions, and the magnitude image of any slice."""

import math

import numpy as np
from scipy.special import expit

from direct_deepen.data.phantom.anatomy import load_templates
from direct_deepen.data.phantom.geometry import Plane, Pose, SmoothField, View

_SAMPLE_SPACING = 1.2
"""Approximate spacing in mm at which the anatomy is sampled before pixels are averaged: the templates' detail."""


class Appearance:
    """Random tissue intensities (fluid is about 1), thickness of the layers around the brain, and spatial variation."""

    def __init__(self, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self.grey = uniform(0.50, 0.64)
        self.fluid = uniform(0.9, 1.1)
        self.white = self.grey * uniform(0.56, 0.76)
        self.bone = uniform(0.015, 0.05)
        self.marrow = uniform(0.12, 0.35)
        self.fat = uniform(0.4, 0.8)
        self.skin = uniform(0.2, 0.35)
        # Exponent of the tissue probabilities, which narrows their borders.
        self.sharpness = uniform(1.5, 2.1)
        # Added to the logarithm of the fluid's probability: above zero widens sulci and ventricles.
        self.fluid_excess = generator.normal(0.15, 0.3)
        # Relative darkening by one standard deviation of the iron and myelin pattern.
        self.myelin = uniform(0.03, 0.07)
        self.bias_strength = uniform(0.03, 0.12)
        # Subarachnoid fluid, skull, and scalp: mean in mm, and logarithmic variation.
        self.thickness = uniform(1.5, 3.0), uniform(5.0, 7.5), uniform(4.0, 6.5)
        self.layers = tuple(SmoothField(generator, 60.0) for _ in range(3))
        self.sulci, self.cortex, self.patches = (SmoothField(generator, 25.0) for _ in range(3))
        # Fine texture of the brain, and that of the scalp.
        self.grain = SmoothField(generator, 3.5)
        self.flesh = SmoothField(generator, 12.0)
        self.bias = SmoothField(generator, 110.0)


class Head:
    """A random head in a slab of ``num_slices`` slices: its ``pose``, and a field of ``view`` that holds it."""

    def __init__(self, generator: np.random.Generator, num_slices: int) -> None:
        self._templates = load_templates()
        self._appearance = Appearance(generator)
        self.pose = Pose(generator, num_slices)
        # The layers' thickness varies by a fifth about its mean.
        margin = 1.2 * sum(self._appearance.thickness)
        self.view = View(generator, self._templates, self.pose, margin)
        self._draw_lesions(generator)

    def _draw_lesions(self, generator: np.random.Generator) -> None:
        """Draw no lesion (one head in four) or a few in the white matter of the slab, mostly small and bright."""
        origin, depths = self._templates.origin, self.pose.depths
        count = 1 + generator.poisson(3.5) if generator.random() < 0.75 else 0
        levels = self.pose.centre[2] + np.array([depths[0] - 3, depths[-1] + 3]) - origin[2]
        lowest, highest = np.rint(levels).astype(int)
        # Where white matter prevails, its spline coefficients differ little from the probability.
        places = np.argwhere(self._templates.tissues[1][:, :, lowest : highest + 1] > 0.7)
        centres = places[generator.integers(len(places), size=count)] + np.array([0, 0, lowest]) + origin
        size = np.exp(generator.normal(math.log(3.0), 0.55, count)).clip(1.5, 14.0)
        bright, dark = generator.uniform(0.7, 1.1, count), generator.uniform(0.15, 0.35, count)
        is_dark = generator.random(count) < 0.1
        # Dark ones are bleeds and calcifications, which are small; a large one would pass for a hole in the image.
        size = np.where(is_dark, np.minimum(size, 3.0), size)
        radii = size[:, None] * generator.uniform(0.7, 1.4, (count, 3))
        # Soft, ragged ellipsoids: centres and radii (lesions, 3) in mm of MNI space, and intensities.
        lesions = centres, radii, np.where(is_dark, dark, bright)
        self._lesions = [values.astype(np.float32) for values in lesions]
        self._lesion_outline = SmoothField(generator, 6.0)

    def magnitude(self, depth: float, size: int) -> np.ndarray:
        """Magnitude (size, size) of the slice at ``depth``: the anatomy sampled finely and averaged over each pixel."""
        finer = max(2, round(self.view.side / size / _SAMPLE_SPACING))
        plane = self.view.plane(depth, size * finer)
        head, brain = self.pose.places(plane)
        appearance = self._appearance
        fluid, skull, scalp = (
            thickness * np.exp(0.2 * layer.at(plane))
            for thickness, layer in zip(appearance.thickness, appearance.layers, strict=True)
        )
        beyond_fluid = self._templates.distance_at(head) - fluid
        magnitude = self._shell(plane, beyond_fluid, skull, scalp)
        inside = beyond_fluid < 2.0
        tissue = self._brain(plane, brain, inside)
        magnitude[inside] += _soft_step(-beyond_fluid[inside], 1.0) * (tissue - magnitude[inside])
        magnitude *= np.exp(appearance.bias_strength * appearance.bias.at(plane))
        return magnitude.reshape(size, finer, size, finer).mean(axis=(1, 3))

    def _shell(self, plane: Plane, beyond_fluid: np.ndarray, skull: np.ndarray, scalp: np.ndarray) -> np.ndarray:
        """Magnitude of bone, marrow, fat, skin and air, ``beyond_fluid`` mm outwards from the skull's inner surface."""
        appearance = self._appearance
        beyond_skull, beyond_skin = beyond_fluid - skull, beyond_fluid - skull - scalp
        fat = appearance.fat * (1 + 0.2 * appearance.flesh.at(plane))
        in_marrow = _soft_step(0.28 * skull - np.abs(beyond_fluid - 0.5 * skull), 1.2)
        magnitude = appearance.bone + in_marrow * (appearance.marrow - appearance.bone)
        magnitude += _soft_step(beyond_skull, 1.0) * (fat - magnitude)
        magnitude += _soft_step(beyond_skin + 1.8, 1.0) * (appearance.skin - magnitude)
        return magnitude * _soft_step(-beyond_skin, 0.8)

    def _brain(self, plane: Plane, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Magnitude of fluid, grey matter, white matter and lesions at those ``places`` that are ``inside``."""

        def at(field: SmoothField) -> np.ndarray:
            return field.at(plane)[inside]

        appearance, places = self._appearance, places[:, inside]
        grey, white, myelin = self._templates.tissues_at(places)
        grey, white = grey.clip(0.0, 1.0), white.clip(0.0, 1.0)
        fluid = (1.0 - grey - white).clip(0.0, 1.0)
        # The factors move the borders (wide or narrow sulci, thick or thin cortex); the power narrows them.
        fluid = fluid * np.exp(appearance.fluid_excess + 0.3 * at(appearance.sulci))
        grey = grey * np.exp(0.15 * at(appearance.cortex))
        fluid, grey, white = (share**appearance.sharpness for share in (fluid, grey, white))

        patches, grain = at(appearance.patches), at(appearance.grain)
        matter = grey * appearance.grey * (1 + 0.04 * patches) + white * appearance.white * (1 - 0.04 * patches)
        matter *= 1 + 0.025 * grain - appearance.myelin * myelin
        magnitude = (matter + fluid * appearance.fluid) / (grey + white + fluid + 1e-6)

        ragged = 0.35 * at(self._lesion_outline)
        for centre, radii, intensity in zip(*self._lesions, strict=True):
            depth_inside = 1 - np.linalg.norm((places - centre[:, None]) / radii[:, None], axis=0) + ragged
            magnitude += expit(6 * depth_inside) * (intensity - magnitude)
        return magnitude


def _soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """Soft step from 0 to 1 where ``distance`` turns positive, about ``width`` wide (both in mm)."""
    return expit(distance * (4 / width))
