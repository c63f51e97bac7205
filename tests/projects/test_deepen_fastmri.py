"""The study on fastMRI's data: its rule for subjects, and its path from files of many shapes to a trained prior."""

import csv
import importlib.util

import h5py
import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.fastmri_file import ismrmrd_header, write_fastmri_volume
from direct_deepen.physics.fourier import fft2, ifft2

SIZE = tiny_direct.SIZE
COUNTS = {"training": 2, "validation": 1, "test": 2}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


split = load(tiny_direct.REPOSITORY / "projects" / "deepen_fastmri" / "split.py")


def acquired(seed, *, coils, rows=2 * SIZE, columns=SIZE):
    """K-space as a scanner leaves it: twice the readout, and as many columns as the protocol had."""
    image = ifft2(torch.from_numpy(tiny_direct.draw_kspace(seed, slices=1, coils=coils)))
    width = max(columns, SIZE)
    full = torch.zeros(*image.shape[:2], rows, width, dtype=image.dtype)
    top, left = (rows - SIZE) // 2, (width - SIZE) // 2
    full[..., top : top + SIZE, left : left + SIZE] = image
    kspace = fft2(full)
    first = (width - columns) // 2
    return kspace[..., first : first + columns].numpy()


def write(path, seed, *, patient, coils, acquisition="AXT2", size=SIZE, **shape):
    """A file like fastMRI's, whose header asks for a square image."""
    kspace = acquired(seed, coils=coils, **shape)
    rows, columns = kspace.shape[-2:]
    encoded = f"<x>{rows}</x><y>{columns}</y>"
    head, _, tail = ismrmrd_header(len(kspace), rows, columns).rpartition(encoded)
    header = f"{head}<x>{size}</x><y>{size}</y>{tail}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_fastmri_volume(
        path,
        kspace,
        attributes={"acquisition": acquisition, "patient_id": patient},
        datasets={"ismrmrd_header": np.bytes_(header)},
    )


FITTING = {
    # patient: (coils, columns), as in fastMRI: 12 to 20 coils, more columns than pixels or fewer
    "p0": (12, SIZE),
    "p1": (16, SIZE + 8),
    "p2": (20, SIZE + 5),
    "p3": (14, SIZE - 6),
    "p4": (13, SIZE - 3),
    "p5": (12, SIZE + 1),
}


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    folder = tmp_path_factory.mktemp("download")
    for number, (patient, (coils, columns)) in enumerate(FITTING.items()):
        part = "multicoil_train" if number % 2 else "multicoil_val"
        write(folder / part / f"{patient}_b.h5", number, patient=patient, coils=coils, columns=columns)
    # What the rule leaves out.
    write(folder / "z" / "again.h5", 10, patient="p0", coils=12)
    write(folder / "z" / "few_coils.h5", 11, patient="q1", coils=4)
    write(folder / "z" / "other_contrast.h5", 12, patient="q2", coils=12, acquisition="AXT1")
    write(folder / "z" / "other_size.h5", 13, patient="q3", coils=12, size=SIZE + 2)
    write(folder / "z" / "challenge.h5", 14, patient="q4", coils=12)
    with h5py.File(folder / "z" / "challenge.h5", "a") as file:
        del file["reconstruction_rss"]
    (folder / "z" / "broken.h5").write_bytes(b"no HDF5")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, download):
    patcher = pytest.MonkeyPatch()
    patcher.setattr(split, "COUNTS", COUNTS)
    output = tmp_path_factory.mktemp("split") / "data"
    split.split(download, output, size=SIZE)
    patcher.undo()
    return output


def test_the_sets_are_disjoint_and_hold_only_what_fits(data):
    sets = {name: {path.name for path in (data / name).iterdir()} for name in COUNTS}
    assert {name: len(files) for name, files in sets.items()} == COUNTS
    files = set().union(*sets.values())
    assert len(files) == sum(COUNTS.values())
    assert files < {"again.h5", *(f"{patient}_b.h5" for patient in FITTING)}
    # Of two scans of a patient the one whose name comes first.
    assert "p0_b.h5" not in files
    with (data / "subjects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == [name for name, count in COUNTS.items() for _ in range(count)]


def test_the_split_does_not_depend_on_where_files_lie(tmp_path, download, data, monkeypatch):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in download.rglob("*.h5"):
        (moved / path.name).symlink_to(path)
    monkeypatch.setattr(split, "COUNTS", COUNTS)
    split.split(moved, tmp_path / "data", size=SIZE)
    for name in COUNTS:
        assert {path.name for path in (tmp_path / "data" / name).iterdir()} == {
            path.name for path in (data / name).iterdir()
        }


def test_too_few_subjects_and_an_output_that_exists_are_one_line_each(tmp_path, download, one_line_error):
    with one_line_error("holds 6 patients", "AXT2", "allowed: 100 or more"):
        split.split(download, tmp_path / "data", size=SIZE)
    with one_line_error("exists already"):
        split.split(download, tmp_path, size=SIZE)
    with one_line_error("no such folder"):
        split.split(tmp_path / "none", tmp_path / "data")


def test_files_of_every_width_and_number_of_coils_become_problems_of_one_shape(tmp_path, download):
    config = tiny_direct.committed("deepen_2d4x")
    for part in (
        config["training"]["datasets"][0],
        config["validation"]["datasets"][0],
        config["inference"]["dataset"],
    ):
        part["transforms"]["augmentation"]["pad"] = [SIZE, SIZE]
        # Of so few samples a wide centre, for ESPIRiT with twelve coils.
        part["transforms"]["masking"]["center_fractions"] = [0.25]
    path = tiny_direct.write_configuration(tmp_path / "config.yaml", config)
    for part in ("multicoil_train", "multicoil_val"):
        for case in cases(inference_dataset(path, download / part), coil_maps="espirit"):
            assert case.problem.masked_kspace.shape == (1, 12, SIZE, SIZE)
            assert case.reference.shape == (1, SIZE, SIZE)
            # The object and not the border that the readout was oversampled by.
            energy = case.reference.abs()[0] ** 2
            assert energy[4:-4, 4:-4].sum() > 0.9 * energy.sum()


def test_a_prior_trains_on_them_with_espirit_maps(tmp_path, data):
    config = tiny_direct.changed(
        tiny_direct.configuration("deepen_2d4x", iterations=7, warm_start=5), {"model.coil_maps": "espirit"}
    )
    config = tiny_direct.with_transforms(config, {"masking.center_fractions": [0.25]})
    run = tiny_direct.direct_train(tmp_path, config, data / "training")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tiny_direct.weights_of(run, 6).values())
    assert len(list((run / "coil_maps").iterdir())) == 2
