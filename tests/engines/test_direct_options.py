"""Options of DIRECT's configuration and commands: they work, have no effect, or are one line (docs/direct.md)."""

import json
import logging

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from direct.data.datasets import FakeMRIBlobsDataset

from direct_deepen.data.direct_options import require_data
from direct_deepen.errors import DeepenError

UNET = {"model_name": "unet.unet_2d.UnetModel2d", "in_channels": 2, "out_channels": 2, "num_filters": 4}
POLICY = {
    "model_name": "adaptive.parameterized.Parameterized2dPolicy",
    "sampling_dimension": "TWO_D",
    "acceleration": 4.0,
    "kspace_shape": [32, 32],
}
ADDITIONAL = {"sensitivity_model": UNET, "sampling_model": POLICY, "registration_model": UNET, "image_model": UNET}


def apart(config):
    """The configuration with transforms of their own for every dataset."""
    return json.loads(json.dumps(config))


@pytest.mark.parametrize(
    ("system", "name"),
    [
        *(("demo_deepen", name) for name in ADDITIONAL),
        *((f"phantom_{system}", "sensitivity_model") for system in ("muse", "elder", "mol", "dps")),
    ],
)
def test_an_additional_model_is_refused_before_data_are_read(tmp_path, exit_with_one_line, system, name):
    config = tiny_direct.changed(tiny_direct.configuration(system), {"additional_models": {name: ADDITIONAL[name]}})
    with exit_with_one_line(f"additional_models.{name} is not used", "allowed"):
        tiny_direct.direct_train(tmp_path, config, tmp_path / "nowhere")


def test_prediction_refuses_an_additional_model_too(tmp_path, map_config, checkpoint, exit_with_one_line):
    config = tiny_direct.changed(map_config, {"additional_models": {"sensitivity_model": UNET}})
    with exit_with_one_line("additional_models.sensitivity_model is not used", "coil maps"):
        tiny_direct.direct_predict(tmp_path, config, tmp_path / "nowhere", checkpoint)


REFUSED = {
    "transforms.transforms_type": ("SSL_SSDU", "SUPERVISED"),
    "kspace_context": (2, "2D only"),
    "transforms.dynamic_mask": (True, "2D only"),
    "transforms.masking.mode": ("DYNAMIC", "2D only"),
    "transforms.masking.name": ("KtRadial", "2D only"),
    "transforms.registration": ({"registration": True}, "2D only"),
    "transforms.image_recon_type": ("SENSE", "SENSE_MOD"),
}
"""What is refused of every dataset, and a word of the line."""


@pytest.mark.parametrize("name", ["SheppLoganT1", "FakeMRIBlobs"])
def test_prediction_refuses_datasets_that_draw_their_images(tmp_path, map_config, checkpoint, exit_with_one_line, name):
    config = tiny_direct.changed(map_config, {"inference.dataset.name": name})
    with exit_with_one_line("inference.dataset.name", name, "a dataset of files"):
        tiny_direct.direct_predict(tmp_path, config, tmp_path, checkpoint)


@pytest.mark.parametrize("place", ["training", "validation", "inference"])
@pytest.mark.parametrize("key", REFUSED)
def test_what_a_dataset_cannot_be_is_one_line_with_its_key(
    tmp_path, map_config, checkpoint, exit_with_one_line, place, key
):
    value, word = REFUSED[key]
    section = tiny_direct.changed(map_config["training"]["datasets"][0], {key: value})
    path = "inference.dataset" if place == "inference" else f"{place}.datasets"
    config = tiny_direct.changed(map_config, {path: section if place == "inference" else [section]})
    where = path if place == "inference" else f"{path}[0]"
    with exit_with_one_line(f"{where}.{key}", word):
        if place == "inference":
            tiny_direct.direct_predict(tmp_path, config, tmp_path / "nowhere", checkpoint)
        else:
            tiny_direct.direct_train(tmp_path, config, tmp_path / "nowhere")


WRONG = [
    ("sensitivity_maps", "maps", "no such key"),
    ("transforms.image_recon_type", "SNESE", "SENSE_MOD"),
    ("transforms.misspelt", 1, "misspelt"),
    ("transforms.masking.acceleration", [4], "acceleration"),
    ("transforms.masking.name", "Gausian", "a mask of DIRECT"),
    ("transforms.masking", None, "pass_mask: true"),
    ("transforms.normalization", {"scaling_key": "masked_kspace", "scale_percentile": None}, "scale_percentile"),
    ("pass_mask", True, "one of them"),
    ("compute_mask", True, "one of them"),
    ("kspace_key", "kspace_sub04", "undersampled already"),
    ("pass_h5s", {"sensitivity_map": ["maps", "folder"]}, "coil_maps"),
]


@pytest.mark.parametrize(("key", "value", "word"), WRONG, ids=lambda value: str(value)[:20])
def test_what_direct_takes_in_silence_in_training_datasets_is_one_line(
    tmp_path, map_config, exit_with_one_line, key, value, word
):
    if key in ("compute_mask", "kspace_key"):
        map_config = tiny_direct.changed(apart(map_config), {"training.datasets.0.name": "CMRxRecon"})
    config = tiny_direct.changed(apart(map_config), {f"training.datasets.0.{key}": value})
    with exit_with_one_line("training.datasets[0].", word):
        tiny_direct.direct_train(tmp_path, config, tmp_path / "nowhere")


def test_what_masks_of_a_name_take_besides_is_allowed(tmp_path, map_config, volumes):
    mask = {"name": "VariableDensityPoisson", "accelerations": [3], "center_fractions": [0.1], "tol": 0.5}
    config = tiny_direct.with_transforms(map_config, {"masking": mask, "cropping.crop": [32, 32]})
    config = tiny_direct.changed(config, {"inference": None})
    assert (tiny_direct.direct_train(tmp_path, config, volumes) / "model_7.pt").exists()


def test_training_refuses_nothing_for_the_sake_of_inference_and_the_other_way_round(
    tmp_path, map_config, volumes, checkpoint
):
    config = tiny_direct.changed(apart(map_config), {"inference.dataset.transforms.transforms_type": "SSL_SSDU"})
    tiny_direct.direct_train(tmp_path / "train", config, volumes)
    config = tiny_direct.changed(map_config, {"training.gradient_steps": 2})
    tiny_direct.direct_predict(tmp_path / "predict", config, volumes, checkpoint)
    with pytest.raises(DeepenError, match="gradient_steps"):
        tiny_direct.build_environment(tmp_path, config)


def test_data_of_more_dimensions_or_arrays_of_other_files_are_one_line(
    tmp_path, map_config, volumes, exit_with_one_line
):
    with pytest.raises(DeepenError, match="3 dimensions; 2D only"):
        require_data(FakeMRIBlobsDataset(1, 2, (3, 8, 8), kspace_context=True), "data")
    images = tmp_path / "images"
    images.mkdir()
    for path in volumes.glob("*.h5"):
        with h5py.File(images / path.name, "w") as file:
            file["image"] = np.ones((2, 32, 32), np.complex64)
    config = tiny_direct.changed(map_config, {"training.datasets.0.input_image_key": "image"})
    with exit_with_one_line("--initialization-images", "not used"):
        tiny_direct.direct_train(tmp_path, config, volumes, initial_images=[images, images])


@pytest.fixture(scope="module")
def cmrxrecon(tmp_path_factory):
    """A file of CMRxRecon's format, (time, slice, coil, column, row), of four images, and its undersampled k-space."""
    folder = tmp_path_factory.mktemp("cmrxrecon") / "volumes"
    folder.mkdir()
    kspace = tiny_direct.draw_kspace(0, slices=4).reshape(2, 2, 3, 32, 32).swapaxes(-1, -2)
    whole = np.zeros(kspace.shape, [("real", "f4"), ("imag", "f4")])
    whole["real"], whole["imag"] = kspace.real, kspace.imag
    sampled = np.arange(32) % 2 == 0
    sampled[4:28] = True
    with h5py.File(folder / "a.mat", "w") as file:
        file["kspace_full"] = whole
        file["kspace_sub04"] = np.where(sampled[:, None], whole, np.zeros_like(whole))
    return folder


def test_direct_predict_takes_masks_that_are_computed_from_undersampled_data(
    tmp_path, map_config, checkpoint, cmrxrecon
):
    section = apart(map_config)["inference"]["dataset"] | {"name": "CMRxRecon", "compute_mask": True}
    section["transforms"] |= {"masking": None, "cropping": {}, "augmentation": {}}
    images = []
    for key in ("kspace_full", "kspace_sub04"):
        config = tiny_direct.changed(map_config, {"inference.dataset": {**section, "kspace_key": key}})
        output = tiny_direct.direct_predict(tmp_path / key, config, cmrxrecon, checkpoint)
        with h5py.File(output / "a.mat") as file:
            images.append(file["reconstruction"][()])
    assert images[0].shape == (4, 32, 32)
    # Four of 32 columns at the edge are missing.
    assert 0 < np.linalg.norm(images[1] - images[0]) < 0.1 * np.linalg.norm(images[0])


NO_EFFECT = {
    "training.metrics": ["fastmri_psnr"],
    "training.swa_start_iter": 2,
    "validation.regularizers": ["tv"],
    "logging.log_as_image": ["image"],
    "physics.noise_matrix_scaling": 3.0,
    "training.datasets.0.pass_attrs": False,
    "training.datasets.0.input_kspace_key": "kspace",
    "training.datasets.0.transforms.masking.val_accelerations": [9.0],
    "training.datasets.0.transforms.estimate_body_coil_image": True,
    "training.datasets.0.transforms.target_acceleration": 9.0,
    "training.datasets.0.transforms.augmentation.rescale_2d_if_3d": True,
    "training.datasets.0.transforms.delete_acs_mask": False,
    "training.datasets.0.transforms.mask_split_ratio": [0.1],
    "training.datasets.0.transforms.registration.demons_num_iterations": 3,
}


def test_what_the_table_says_to_have_no_effect_has_none_nor_has_mixed_precision(tmp_path, map_config, volumes, caplog):
    expected = tiny_direct.direct_train(tmp_path / "plain", map_config, volumes)
    caplog.clear()
    config = tiny_direct.changed(map_config, NO_EFFECT)
    found = tiny_direct.direct_train(tmp_path / "changed", config, volumes, mixed_precision=True)
    weights = tiny_direct.weights_of(expected, 7)
    for key, weight in tiny_direct.weights_of(found, 7).items():
        assert torch.equal(weight, weights[key])
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in told if "mixed-precision" in line] == [
        "--mixed-precision has no effect: all is computed in single precision."
    ]


def test_several_training_and_validation_sets_images_and_a_crop_to_the_size_of_the_header(
    tmp_path, map_config, volumes
):
    section = map_config["training"]["datasets"][0]
    small = tiny_direct.write_volumes(tmp_path / "small", ["c"], seed=3, size=24)
    sets = [{**section, "text_description": name} for name in ("one", "two")]
    other = {**section, "text_description": "small", "data_root": str(small)}
    changes = {"training.datasets": sets, "validation.datasets": [*sets, other], "validation.crop": "header"}
    run = tiny_direct.direct_train(tmp_path, tiny_direct.changed(map_config, changes), volumes)
    logged = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()][-1]
    assert {f"val/{name}/fastmri_psnr_metric" for name in ("one", "two", "small")} <= logged.keys()
    assert logged["val/one/fastmri_psnr_metric"] == logged["val/two/fastmri_psnr_metric"]
    assert list((run / "tensorboard").iterdir())


def test_weights_of_another_system_begin_a_training_where_the_model_is_the_same(tmp_path, volumes, exit_with_one_line):
    muse = tiny_direct.direct_train(tmp_path, tiny_direct.configuration("phantom_muse"), volumes, name="muse")
    first = tiny_direct.weights_of(muse, 7)
    config = tiny_direct.changed(tiny_direct.configuration(), {"training.lr": 1e-30, "model.weight": 1.0})
    found = tiny_direct.direct_train(tmp_path, config, volumes, name="deepen", initialization=muse / "model_7.pt")
    for key, weight in tiny_direct.weights_of(found, 7).items():
        torch.testing.assert_close(weight, first[key], rtol=0, atol=1e-20)
    other = tiny_direct.configuration("phantom_dps")
    with exit_with_one_line("model_7.pt: weights of another model"):
        tiny_direct.direct_train(tmp_path, other, volumes, name="dps", initialization=muse / "model_7.pt")
