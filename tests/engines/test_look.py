"""The look at every volume, in ``direct train`` and ``direct predict``: what they make of files as people have them."""

import h5py
import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen.data.fastmri_file import ismrmrd_header
from direct_deepen.engines.reconstruction import reconstruct
from direct_deepen.inference import mm_map
from direct_deepen.physics import SenseOperator, intensity_scale, normalize_sensitivity_map
from direct_deepen.physics.fourier import ifft2
from direct_deepen.physics.problem import Problem

KSPACE = tiny_direct.draw_kspace(0)
SIZE = tiny_direct.SIZE
HEADER = ismrmrd_header(2, SIZE, SIZE)
OF_FILES = {"masking": None, "cropping.crop": None, "augmentation.pad": None}


def write(path, kspace=KSPACE, *, header=HEADER, **datasets):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        if header is not None:
            file["ismrmrd_header"] = header
        for name, content in datasets.items():
            file[name] = content
    return path.parent


def result(output):
    with h5py.File(output / "a.posterior.h5") as file:
        return file["map"][()]


@pytest.fixture(scope="module")
def config():
    return tiny_direct.configuration(batch_size=2, iterations=6, warm_start=4)


@pytest.fixture(scope="module")
def reading(config):
    """A configuration that takes the masks of the files."""
    changes = {"training.datasets.0.pass_mask": True, "inference.dataset.pass_mask": True}
    return tiny_direct.changed(tiny_direct.with_transforms(config, OF_FILES), changes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("trained")
    return tiny_direct.direct_train(folder, config, write(folder / "data" / "a.h5")) / "model_5.pt"


@pytest.fixture(scope="module")
def as_it_should_be(tmp_path_factory, config, checkpoint):
    folder = tmp_path_factory.mktemp("right")
    return result(tiny_direct.direct_predict(folder / "out", config, write(folder / "data" / "a.h5"), checkpoint))


# ---- Folders


def raw_data(folder):
    with h5py.File(folder / "scan.h5", "w") as file:
        file["dataset/xml"], file["dataset/data"] = b"<ismrmrdHeader/>", np.zeros(3)


def only_hdf5(folder):
    (folder / "a.h5").rename(folder / "a.hdf5")


def in_capitals(folder):
    (folder / "a.h5").rename(folder / "A.H5")


def other_results(folder):
    with h5py.File(folder / "b.h5", "w") as file:
        file["reconstruction"] = np.zeros((1, 2, 2))


FOLDERS = [
    (raw_data, ("scan.h5", "ISMRMRD raw data")),
    (only_hdf5, ("a.hdf5", "extension", "allowed: .h5")),
    (in_capitals, ("A.H5", "extension", "allowed: .h5")),
    (other_results, ("b.h5", "no array `kspace`")),
]


@pytest.mark.parametrize(("change", "words"), FOLDERS)
def test_a_folder_with_what_is_no_volume_is_one_line(tmp_path, config, checkpoint, exit_with_one_line, change, words):
    data = write(tmp_path / "data" / "a.h5")
    change(data)
    with exit_with_one_line(*words):
        tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    with exit_with_one_line(*words):
        tiny_direct.direct_train(tmp_path / "runs", config, data)


def test_posterior_files_beside_data_are_no_data(tmp_path, config, checkpoint, as_it_should_be):
    data = write(tmp_path / "data" / "a.h5")
    with h5py.File(data / "a.posterior.h5", "w") as file:
        file["map"] = np.zeros(3)
    found = result(tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint))
    np.testing.assert_array_equal(found, as_it_should_be)
    tiny_direct.direct_train(tmp_path / "runs", config, data)


# ---- What is repaired gives what the volume gives as it should be


REPAIRED = {
    "pairs": lambda path: write(path, KSPACE.view([("real", "<f4"), ("imag", "<f4")])),
    "last axis": lambda path: write(path, np.stack([KSPACE.real, KSPACE.imag], axis=-1)),
    "big endian": lambda path: write(path, KSPACE.astype(">c8")),
    "centre in the corner": lambda path: write(path, np.fft.ifftshift(KSPACE, axes=(-2, -1))),
    "no header": lambda path: write(path, header=None),
    "header without limits": lambda path: write(
        path, header="<ismrmrdHeader><encoding><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    ),
    "large images": lambda path: write(path, header=large_images()),
}


def large_images():
    before, after = HEADER.split("<reconSpace>")
    return f"{before}<reconSpace>{after.replace(f'<x>{SIZE}</x>', f'<x>{4 * SIZE}</x>')}"


@pytest.mark.parametrize("stored", REPAIRED.values(), ids=REPAIRED.keys())
def test_repaired_data_are_predicted_and_trained_like_others(tmp_path, config, checkpoint, as_it_should_be, stored):
    data = stored(tmp_path / "data" / "a.h5")
    output = tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    np.testing.assert_array_equal(result(output), as_it_should_be)
    run = tiny_direct.direct_train(tmp_path / "runs", config, data)
    expected = torch.load(checkpoint, weights_only=True)["model"]
    for name, weight in tiny_direct.weights_of(run, 5).items():
        assert torch.equal(weight, expected[name])


def test_volumes_with_and_without_a_header_go_into_one_batch(tmp_path, config):
    data = write(tmp_path / "data" / "a.h5", KSPACE[:1])
    write(data / "b.h5", KSPACE[1:], header=None)
    tiny_direct.direct_train(tmp_path / "runs", config, data)


# ---- What is refused


def aliased(path):
    mask = np.arange(SIZE) % 3 == 0
    mask[12:20] = True
    return write(path, KSPACE * mask)


REFUSED = {
    "undersampled": (aliased, "undersampled already"),
    "coils last": (lambda path: write(path, KSPACE.transpose(0, 2, 3, 1)), "axes"),
    "MATLAB": (lambda path: write(path, KSPACE.transpose(3, 2, 1, 0)), "axes"),
    "off centre": (lambda path: write(path, np.roll(KSPACE, 8, axis=-1)), "centre"),
    "radial": (lambda path: write(path, header=HEADER.replace("cartesian", "radial")), "radial"),
}


@pytest.mark.parametrize(("stored", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_would_be_wrong_are_one_line(tmp_path, config, checkpoint, exit_with_one_line, stored, word):
    data = stored(tmp_path / "data" / "a.h5")
    with exit_with_one_line("a.h5", word, "allowed"):
        tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    with exit_with_one_line("a.h5", word, "allowed"):
        tiny_direct.direct_train(tmp_path / "runs", config, data)
    assert not list(tmp_path.rglob("model_*.pt")) + list((tmp_path / "out").glob("*.h5"))


# ---- Masks of the files


def surrounded(mask, rows):
    """A mask whose block about the centre, eight columns wide and as many rows or all, ends there."""
    mask[..., 11:21, 11:21] = False
    if not rows:
        mask[..., 11:21] = False
    mask[..., (slice(12, 20) if rows else slice(None)), 12:20] = True
    return mask


def draw_mask(*shape):
    return np.random.default_rng(0).random(shape) < 0.4


MASKS = {
    "one": (surrounded(draw_mask(SIZE, SIZE), True), True),
    "one a slice": (surrounded(draw_mask(2, SIZE, SIZE), True), True),
    "columns a slice": (surrounded(draw_mask(2, 1, SIZE), False)[:, 0], False),
    "none": (surrounded(draw_mask(2, SIZE, SIZE), True), True),
}
SYSTEMS = ["deepen", "muse", "pnp_ista", "elder", "mol", "dps", "alps"]


def reconstructed(engine, kspace, mask, block, name):
    """What the Python interface makes of a slice with a mask, (row, column): maps from the block, scale, image."""
    kspace, rows = torch.from_numpy(kspace * mask)[None], torch.zeros(SIZE, 1)
    rows[12 : 20 if block else None] = 1.0
    rows = rows if block else torch.ones(SIZE, 1)
    # DIRECT's taper, along the columns.
    taper = torch.exp(-((torch.linspace(-1, 1, SIZE) / 0.7) ** 2))
    taper[:12] = taper[20:] = 0
    A = SenseOperator(normalize_sensitivity_map(ifft2(kspace * rows * taper)), torch.from_numpy(mask)[None, None])
    scale = intensity_scale(A, kspace)
    problem = Problem(A, kspace / scale[:, None, None, None], scale, [name])
    return reconstruct(problem, engine.prior, engine.inference, seed=engine.seed).image[0].numpy()


@pytest.mark.parametrize(
    "name", [name if name == "deepen" else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS]
)
def test_prediction_with_any_mask_is_that_of_the_python_interface(tmp_path, name):
    config = tiny_direct.configuration("demo_deepen" if name == "deepen" else f"phantom_{name}", iterations=1)
    config = tiny_direct.with_transforms(config, OF_FILES)
    config = tiny_direct.changed(config, {"inference.dataset.pass_mask": True})
    config["training"]["datasets"][0]["pass_mask"] = True
    engine = tiny_direct.build_environment(tmp_path / "environment", config).engine
    engine.model.eval()
    torch.save({"model": engine.model.state_dict()}, tmp_path / "model_0.pt")
    for kind, (mask, block) in MASKS.items():
        planes = np.broadcast_to(mask[:, None] if kind == "columns a slice" else mask, (2, SIZE, SIZE))
        stored = {} if kind == "none" else {"mask": mask}
        data = write(tmp_path / kind / "data" / "a.h5", KSPACE * planes[:, None], **stored)
        output = tiny_direct.direct_predict(tmp_path / kind / "out", config, data, tmp_path / "model_0.pt")
        with h5py.File(output / "a.h5") as file:
            np.testing.assert_array_equal(np.squeeze(file["sampling_mask"][()]) != 0, planes)
            found = file["reconstruction"][()]
        for number in range(2):
            expected = np.abs(reconstructed(engine, KSPACE[number], planes[number], block, ("data/a.h5", number)))
            # Of the same arithmetic in another order: single precision, and dozens of iterations.
            np.testing.assert_allclose(found[number], expected, rtol=0, atol=1e-3 * expected.max())


def test_training_uses_the_masks_of_full_data_and_refuses_what_is_undersampled(
    tmp_path, reading, exit_with_one_line, monkeypatch
):
    mask, _ = MASKS["one a slice"]
    seen = {}

    def scale_of(A, kspace, **options):
        seen.setdefault(A.sampling_mask.shape, []).extend(A.sampling_mask[:, 0].numpy())
        return intensity_scale(A, kspace, **options)

    monkeypatch.setattr("direct_deepen.data.batch.intensity_scale", scale_of)
    tiny_direct.direct_train(tmp_path / "runs", reading, write(tmp_path / "full" / "a.h5", mask=mask))
    (planes,) = seen.values()
    assert {plane.tobytes() for plane in planes} == {plane.tobytes() for plane in mask}
    for number, stored in enumerate(({"mask": mask}, {})):
        data = write(tmp_path / f"part{number}" / "a.h5", KSPACE * mask[:, None], **stored)
        with exit_with_one_line("a.h5", "allowed", "`mask`"):
            tiny_direct.direct_train(tmp_path / "runs", reading, data, name=f"part{number}")


# ---- The Python interface


def test_kspace_that_is_given_without_its_mask_gives_the_same(environment):
    mask, _ = MASKS["one"]
    kspace = torch.from_numpy(KSPACE[:1])
    maps = normalize_sensitivity_map(ifft2(kspace * torch.from_numpy(np.hanning(SIZE)).float()))
    # A hole in the disc that intensities are measured in.
    mask = mask.copy()
    mask[15:17, 15:18] = False
    A = SenseOperator(maps, torch.from_numpy(mask)[None, None])
    scale = intensity_scale(A, kspace * torch.from_numpy(mask))
    assert torch.equal(intensity_scale(A, kspace), scale)
    energy = environment.engine.prior
    found, expected = (mm_map(A, data / scale, energy) for data in (kspace, kspace * torch.from_numpy(mask)))
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.cost_history, expected.cost_history)
