"""Test sets outside the family of the training phantoms, as fastMRI files: `python projects/quality/sets.py OUT`.

``shepp_logan``  slices of DIRECT's three-dimensional Shepp-Logan phantom (T2);
``ellipses``     random overlapping ellipses, with no anatomy at all;
``cysts``        the test heads with sharp dark discs in a bright rim, a lesion that training never saw.

All are measured like the phantoms: coils, Fourier transform, noise.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from direct.data.datasets import SheppLoganT2Dataset

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.data.phantom import acquire, brain_volume

COILS = 8
SLICES = 4
VOLUMES = 2


def shepp_logan(generator: np.random.Generator, size: int) -> np.ndarray:
    """Return neighbouring slices around the middle, each volume at a height of its own."""
    height = generator.uniform(-0.3, 0.2)
    # Drawn finely and averaged over pixels, as the heads are.
    shape = (4 * size, 4 * size, SLICES)
    dataset = SheppLoganT2Dataset(shape=shape, num_coils=1, seed=0, zlimits=(height, height + 0.3))
    images = np.stack([dataset.sample_image(index) for index in range(SLICES)])
    return np.abs(images).reshape(SLICES, size, 4, size, 4).mean(axis=(2, 4))


def ellipses(generator: np.random.Generator, size: int) -> np.ndarray:
    """Return sums of a dozen ellipses inside a large one."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, 4 * size)], indexing="ij")
    images = []
    for _ in range(SLICES):
        image = 0.5 * ((x / 0.75) ** 2 + (y / 0.9) ** 2 < 1)
        for _ in range(12):
            (row, column), (a, b) = generator.uniform(-0.55, 0.55, 2), generator.uniform(0.05, 0.35, 2)
            angle = generator.uniform(0, np.pi)
            u = (x - column) * np.cos(angle) + (y - row) * np.sin(angle)
            v = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
            image = image + generator.uniform(-0.3, 0.5) * ((u / a) ** 2 + (v / b) ** 2 < 1)
        images.append(np.clip(image, 0, None).reshape(size, 4, size, 4).mean(axis=(1, 3)))
    return np.stack(images)


def cysts(generator: np.random.Generator, size: int) -> np.ndarray:
    """Return heads in which three discs are nearly black, with a rim as bright as fluid."""
    volume = brain_volume(generator, num_slices=SLICES, size=size, num_coils=1)
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    image = volume.image.copy()
    bright = np.quantile(np.abs(image), 0.98)
    for _ in range(3):
        row, column = generator.uniform(-0.35, 0.35, 2)
        distance = np.hypot(y - row, x - column) / generator.uniform(0.06, 0.12)
        phase = np.exp(1j * np.angle(image))
        image = np.where(distance < 1, 0.05 * bright * phase, image)
        image = np.where((distance >= 1) & (distance < 1.4), bright * phase, image)
    return image


SETS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "shepp_logan": shepp_logan,
    "ellipses": ellipses,
    "cysts": cysts,
}


def write_sets(output: Path, *, size: int = 64, seed: int = 4) -> None:
    """Write every set to a folder of its own."""
    for number, (name, draw) in enumerate(SETS.items()):
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        for volume in range(VOLUMES):
            generator = np.random.default_rng([seed, number, volume])
            image = draw(generator, size)
            # Smooth phase where the image has none.
            if not np.iscomplexobj(image):
                y, x = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
                a, b, c = generator.uniform(-1, 1, 3)
                image = image * np.exp(1j * (a + b * x + c * y))
            measured = acquire(image.astype(np.complex64), generator, num_coils=COILS)
            write_fastmri_volume(folder / f"{name}_{volume}.h5", measured.kspace)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    write_sets(parser.parse_args().output)
