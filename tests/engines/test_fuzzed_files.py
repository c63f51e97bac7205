"""Files damaged at random: who reads them gets what is in them or one line, never a traceback or a wait without end.

Five hundred files, seeded: cut short, some bytes turned over, a piece zeroed, a key or a dataset missing, or of another
type.
"""

import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import tiny_direct
import yaml
from PIL import Image

from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.image_files import read_series
from direct_deepen.engines.calibration_file import Calibration, read_calibration, write_calibration
from direct_deepen.engines.trained import load_system, load_trained
from direct_deepen.errors import DeepenError
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import read_results
from direct_deepen.pages.report import read_table
from direct_deepen.pages.training_curves import read_curves
from direct_deepen.posterior.posterior_file import read_posterior

SECONDS = 20
"""More than any reader takes of such small files by a factor of a hundred."""


@contextmanager
def no_wait_without_end() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- Damage


def cut(path: Path, generator: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(generator.integers(len(content)))])


def turn_bytes(path: Path, generator: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    # Half of them in the first thousand bytes, where formats say what follows.
    last = min(1000, len(content)) if generator.random() < 0.5 else len(content)
    for place in generator.integers(last, size=int(generator.integers(1, 21))):
        content[place] ^= int(generator.integers(1, 256))
    path.write_bytes(content)


def zero_piece(path: Path, generator: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    first, last = np.sort(generator.integers(len(content) + 1, size=2))
    content[first:last] = bytes(int(last - first))
    path.write_bytes(content)


def change_hdf5(path: Path, generator: np.random.Generator) -> None:
    """Take out a dataset, or give it another type, shape or content."""
    with h5py.File(path, "r+") as file:
        name = str(generator.choice(sorted(file)))
        old = file[name][()] if isinstance(file[name], h5py.Dataset) else 0
        del file[name]
        others: list[Any] = [
            None,
            b"text",
            "text",
            0,
            np.zeros(3),
            np.zeros((0, 2)),
            np.asarray(old).astype(str),
            np.full((2, 2), 1j),
        ]
        other = others[int(generator.integers(len(others)))]
        if other is not None:
            file[name] = other.astype("S") if isinstance(other, np.ndarray) and other.dtype.kind == "U" else other


def change_keys(path: Path, generator: np.random.Generator) -> None:
    """Take out a key of YAML, at any depth, or give it another value."""
    content = yaml.safe_load(path.read_text())
    places: list[tuple[Any, Any]] = []

    def gather(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else []:
            places.append((part, key))
            gather(part[key])

    gather(content)
    part, key = places[int(generator.integers(len(places)))]
    others = [None, -1, 0, "text", [], {}, [1, 2], {"a": 1}, float("nan"), 10**30, "${nothing}", True]
    choice = int(generator.integers(len(others) + 3))
    if choice < len(others):
        part[key] = others[choice]
    else:
        del part[key]
    path.write_text(yaml.safe_dump(content))


BYTES = (cut, turn_bytes, zero_piece)


# ---- Files, and who reads them


@dataclass(frozen=True)
class Kind:
    """Files of a kind: the whole one, who reads it, and what may happen to it."""

    write: Callable[["Files", Path], Path]
    read: Callable[["Files", Path], object]
    damage: tuple[Callable[[Path, np.random.Generator], None], ...] = BYTES
    count: int = 40


@dataclass(frozen=True)
class Files:
    """What is there undamaged."""

    volume: Path
    posterior: Path
    checkpoint: Path
    config: dict[str, Any]
    configuration: Path
    log: Path


def copied(name: str) -> Callable[[Files, Path], Path]:
    return lambda files, folder: Path(shutil.copy(getattr(files, name), folder))


def calibration(files: Files, folder: Path) -> Path:
    path = folder / "model.calibration.yaml"
    write_calibration(path, Calibration(1.1, 0.9, 0.8, 3, 12, "0" * 64, {"num_samples": 4}, 0, "0.2", "2.6"))
    return path


def study(files: Files, folder: Path) -> Path:
    content = {
        "test": "data", "validation": "data", "reference": "sense", "seed": 0, "problems": {"a": "a.yaml"},
        "methods": {"sense": {"classical": "sense"}, "map": {"configuration": "a.yaml", "checkpoint": "model.pt"}},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return folder / "study.yaml"


def table(files: Files, folder: Path) -> Path:
    rows = "".join(f"sense,2d4x,a.h5 slice {index},{20 + index}.5,0.9\n" for index in range(20))
    (folder / "rows.csv").write_text(f"method,mask,case,psnr,ssim\n{rows}")
    return folder / "rows.csv"


def array(files: Files, folder: Path) -> Path:
    np.savez(folder / "a.npz", a=np.arange(64.0).reshape(1, 8, 8))
    return folder / "a.npz"


def nifti(files: Files, folder: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.eye(4)), folder / "a.nii")
    return folder / "a.nii"


def picture(files: Files, folder: Path) -> Path:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "a.png")
    return folder / "a.png"


def data(files: Files, path: Path) -> object:
    return list(cases(inference_dataset(files.configuration, path.parent)))


KINDS = {
    "volume": Kind(copied("volume"), data, (*BYTES, change_hdf5), 100),
    "posterior": Kind(
        copied("posterior"), lambda _, path: read_posterior(path, num_samples=1).estimates(), (*BYTES, change_hdf5), 60
    ),
    "checkpoint": Kind(copied("checkpoint"), lambda files, path: load_trained(path, files.configuration), BYTES, 60),
    "configuration": Kind(
        copied("configuration"), lambda files, path: load_system(path), (*BYTES, change_keys, change_keys), 60
    ),
    "data configuration": Kind(
        copied("configuration"),
        lambda files, path: len(inference_dataset(path, files.volume.parent)),
        (change_keys, cut),
        40,
    ),
    "calibration": Kind(calibration, lambda _, path: read_calibration(path), (*BYTES, change_keys), 40),
    "study": Kind(study, lambda _, path: load_study(path), (*BYTES, change_keys), 40),
    "log of a training": Kind(copied("log"), lambda _, path: read_curves(path.parent), BYTES, 20),
    "table": Kind(table, lambda _, path: (read_table(path), read_results([path])), BYTES, 20),
    "array": Kind(array, lambda _, path: list(read_series(path.parent)), BYTES, 20),
    "NIfTI": Kind(nifti, lambda _, path: list(read_series(path.parent)), BYTES, 20),
    "picture": Kind(picture, lambda _, path: list(read_series(path.parent)), BYTES, 20),
}


def test_there_are_five_hundred():
    assert sum(kind.count for kind in KINDS.values()) == 500


@pytest.fixture(scope="module")
def files(tmp_path_factory, volume, mean_config, mean_prediction, checkpoint, trained) -> Files:
    config = tiny_direct.changed(mean_config, {})
    configuration = tiny_direct.write_configuration(tmp_path_factory.mktemp("whole") / "a.yaml", config)
    return Files(
        volume / "test.h5",
        mean_prediction / "test.posterior.h5",
        checkpoint,
        config,
        configuration,
        trained / "metrics.json",
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, files, name):
    kind, refused = KINDS[name], 0
    for number in range(kind.count):
        generator = np.random.default_rng([zlib.crc32(name.encode()), number])
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        path = kind.write(files, folder)
        damage = kind.damage[number % len(kind.damage)]
        damage(path, generator)
        before = sorted(folder.iterdir())
        try:
            with no_wait_without_end():
                kind.read(files, path)
        except DeepenError as error:
            refused += 1
            told = str(error)
        else:
            told = path.name
        assert "\n" not in told, number
        assert path.name in told, (number, told)
        assert sorted(folder.iterdir()) == before, number
        shutil.rmtree(folder)
    # Most damage is seen; some is of what nobody reads, as a number in k-space.
    assert refused > kind.count // 5
