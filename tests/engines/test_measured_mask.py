"""``direct predict`` on data that were undersampled when they were measured, as fastMRI's test set is."""

import h5py
import numpy as np
import pytest
import tiny_direct

from direct_deepen.data.fastmri_file import write_fastmri_volume

ROWS, COLUMNS, IMAGE = 48, 40, 32
PADDING = 2
"""Columns at either end that were never measured: they are zero in all files."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a fully sampled volume of the shape of fastMRI's: oversampled rows, padded columns, a smaller image."""
    kspace = np.array(tiny_direct.draw_kspace(10, size=ROWS)[..., (ROWS - COLUMNS) // 2 : (ROWS + COLUMNS) // 2])
    kspace[..., :PADDING] = kspace[..., -PADDING:] = 0
    folder = tmp_path_factory.mktemp("whole") / "volume"
    folder.mkdir()
    write_fastmri_volume(folder / "test.h5", kspace)
    with h5py.File(folder / "test.h5", "r+") as file:
        header = file["ismrmrd_header"][()].decode()
        del file["ismrmrd_header"]
        encoded, _, image = header.partition("<reconSpace>")
        image = image.replace(f"<x>{ROWS}</x><y>{COLUMNS}</y>", f"<x>{IMAGE}</x><y>{IMAGE}</y>")
        limits = f"<maximum>{COLUMNS - 1}</maximum><center>{COLUMNS // 2}</center>"
        measured = f"<maximum>{COLUMNS - 1 - 2 * PADDING}</maximum><center>{COLUMNS // 2 - PADDING}</center>"
        assert limits in image
        file["ismrmrd_header"] = f"{encoded}<reconSpace>{image.replace(limits, measured)}".encode()
    return folder


@pytest.fixture(scope="module")
def simulating(mean_config):
    """A configuration that draws a mask over columns; images have the size of k-space, and are cropped at the end."""
    transforms = tiny_direct.changed(
        mean_config["inference"]["dataset"]["transforms"],
        {
            "masking.name": "FastMRIRandom", "masking.accelerations": [3.0], "masking.center_fractions": [0.2],
            "cropping.crop": None, "augmentation.pad": None,
        },
    )  # fmt: skip
    return tiny_direct.changed(mean_config, {"inference.dataset.transforms": transforms, "inference.crop": "header"})


@pytest.fixture(scope="module")
def reading(simulating):
    """The same with the masks of the files."""
    return tiny_direct.changed(
        simulating, {"inference.dataset.transforms.masking": None, "inference.dataset.pass_mask": True}
    )


@pytest.fixture(scope="module")
def of_whole(tmp_path_factory, simulating, whole, checkpoint):
    return tiny_direct.direct_predict(tmp_path_factory.mktemp("of_whole"), simulating, whole, checkpoint)


@pytest.fixture(scope="module")
def mask(of_whole):
    """What was simulated, one number a column."""
    with h5py.File(of_whole / "test.h5") as file:
        rows = np.squeeze(file["sampling_mask"][0]) != 0
    assert rows.shape == (ROWS, COLUMNS)
    assert (rows == rows[0]).all()
    assert not rows[0, :PADDING].any()
    assert not rows[0, -PADDING:].any()
    # DIRECT takes for the centre, which coil maps come from, all columns about the middle up to the first gap: here
    # those of center_fractions and none besides.
    centre = round(0.2 * COLUMNS)
    first = (COLUMNS - centre + 1) // 2
    assert rows[0, first : first + centre].all()
    assert not rows[0, first - 1]
    assert not rows[0, first + centre]
    return rows[0]


def content(output):
    with h5py.File(output / "test.posterior.h5") as file:
        arrays = {name: dataset[()] for name, dataset in file.items() if not name.endswith("seconds")}
    with h5py.File(output / "test.h5") as file:
        return arrays | {name: dataset[()] for name, dataset in file.items()}


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_data_that_were_undersampled_are_predicted_like_full_ones_with_that_mask(
    tmp_path, reading, whole, of_whole, mask, checkpoint, kind
):
    measured = tiny_direct.undersample(whole / "test.h5", tmp_path / "volume" / "test.h5", mask.astype(kind)).parent
    found = content(tiny_direct.direct_predict(tmp_path / "output", reading, measured, checkpoint))
    expected = content(of_whole)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(np.squeeze(found[name]), np.squeeze(array), err_msg=name)
    assert found["reconstruction"].shape == (tiny_direct.SLICES, IMAGE, IMAGE)
    assert found["mean"].shape == (tiny_direct.SLICES, ROWS, COLUMNS)


def test_another_mask_gives_another_prediction(tmp_path, reading, whole, of_whole, mask, checkpoint):
    other = mask.copy()
    other[PADDING:12:3] = True
    measured = tiny_direct.undersample(whole / "test.h5", tmp_path / "volume" / "test.h5", other).parent
    found = content(tiny_direct.direct_predict(tmp_path / "output", reading, measured, checkpoint))
    assert np.abs(found["map"] - content(of_whole)["map"]).max() > 1e-3 * np.abs(found["map"]).max()


def test_columns_that_the_header_calls_padding_are_no_samples_whatever_the_mask_says(
    tmp_path, reading, whole, of_whole, mask, checkpoint
):
    padded = mask.copy()
    padded[:PADDING] = padded[-PADDING:] = True
    measured = tiny_direct.undersample(whole / "test.h5", tmp_path / "volume" / "test.h5", padded).parent
    found = content(tiny_direct.direct_predict(tmp_path / "output", reading, measured, checkpoint))
    np.testing.assert_array_equal(found["map"], content(of_whole)["map"])


# ---- What would be a silent wrong answer


@pytest.fixture
def measured(tmp_path, whole, mask):
    return tiny_direct.undersample(whole / "test.h5", tmp_path / "volume" / "test.h5", mask).parent


def test_no_second_mask_is_drawn_over_data_that_are_undersampled(
    tmp_path, simulating, measured, checkpoint, exit_with_one_line
):
    with exit_with_one_line("test.h5: undersampled already", "pass_mask: true", "masking: null"):
        tiny_direct.direct_predict(tmp_path / "output", simulating, measured, checkpoint)


def test_data_that_are_undersampled_train_nothing(tmp_path, measured, exit_with_one_line):
    with exit_with_one_line("test.h5: undersampled already", "fully sampled volumes"):
        tiny_direct.direct_train(tmp_path / "runs", tiny_direct.configuration(iterations=2, warm_start=2), measured)


def test_a_mask_that_a_file_lacks_is_named(tmp_path, reading, whole, checkpoint, exit_with_one_line):
    with exit_with_one_line("test.h5: holds no `mask`", "pass_mask"):
        tiny_direct.direct_predict(tmp_path / "output", reading, whole, checkpoint)
