"""Phantom volumes as files of fastMRI's format."""

from pathlib import Path

import numpy as np

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.data.phantom.anatomy import load_templates
from direct_deepen.data.phantom.volume import DEFAULT_NOISE_STD, brain_volume, require_sizes
from direct_deepen.errors import require, require_count
from direct_deepen.progress import progress_bar


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
        As for :func:`~direct_deepen.data.phantom.brain_volume`.
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
    sizes = {"num_slices": num_slices, "size": size, "num_coils": num_coils}
    require_sizes(**sizes, noise_std=noise_std)
    require_count("num_volumes", num_volumes)
    require_count("seed", seed, least=0)
    require(
        prefix not in ("", ".", "..") and Path(prefix).name == prefix,
        f"prefix is {prefix!r}; allowed: the first part of a file name, without folders",
    )
    require(output.is_dir() or not output.exists(), f"output is {str(output)!r}, a file; allowed: a folder")
    # Before anything is drawn, so that a missing nilearn leaves no empty folder behind.
    load_templates()
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{prefix}_{seed:03d}_{index:03d}.h5" for index in range(num_volumes)]
    for index, path in enumerate(progress_bar(paths, name="phantoms", unit="volume")):
        volume = brain_volume(np.random.default_rng([seed, index]), **sizes, noise_std=noise_std)
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
    return paths
