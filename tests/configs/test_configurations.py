"""The committed configurations: up to date, complete where DIRECT's defaults differ, and what their names say."""

import inspect
import re

import pytest
import tiny_direct
import torch
import yaml
from direct.common.subsample import build_masking_function
from direct.data.datasets_config import TransformsConfig
from direct.data.mri_transforms import build_mri_transforms
from direct.train import build_training_datasets_from_environment
from direct.utils import dict_flatten, remove_keys
from omegaconf import ListConfig, OmegaConf
from torch.utils.data import default_collate

from direct_deepen.data.cases import inference_dataset
from direct_deepen.physics.scale import central_disc

FOLDER = tiny_direct.REPOSITORY / "configs"
GENERATED = tiny_direct.GENERATE.configurations()
FILES = sorted(FOLDER.glob("*.y*ml"))
DEEPEN = [path for path in FILES if "deepen" in path.name]
OURS = [path for path in FILES if not any(name in path.name for name in ("varnet", "vsharp"))]
SMALL = [path for path in FILES if path.name.startswith(("demo", "phantom"))]


def by_name(path):
    return path.name


@pytest.fixture(params=FILES, ids=by_name)
def path(request):
    return request.param


@pytest.fixture
def content(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def transforms_of(content):
    """The transforms of every dataset in a configuration."""
    datasets = [*content["training"]["datasets"], *content["validation"]["datasets"], content["inference"]["dataset"]]
    return [dataset["transforms"] for dataset in datasets]


# ---- The files


def test_there_is_a_file_for_every_generated_configuration_and_no_other():
    assert {path.name for path in FILES} == set(GENERATED), "run `make configs`, and delete what it does not write"


def test_every_file_is_what_the_generator_writes(path):
    expected = tiny_direct.GENERATE.text_of(GENERATED[path.name])
    assert path.read_text(encoding="utf-8") == expected, f"{path.name} is out of date: run `make configs`"


def test_direct_builds_model_and_engine_of_every_file(tmp_path, path, content):
    environment = tiny_direct.build_environment(tmp_path, path)
    assert type(environment.engine).__name__ == content["model"]["engine_name"]
    assert sum(parameter.numel() for parameter in environment.engine.model.parameters()) > 1000
    # What DIRECT makes of the file has all that stands in the file.
    typed = OmegaConf.to_container(environment.cfg.model)
    assert OmegaConf.merge(typed, content["model"]) == typed


# ---- Training, validation and inference see the same data


def test_the_transforms_of_training_validation_and_inference_are_equal_key_by_key(content):
    first, *others = transforms_of(content)
    assert len(others) == 2
    for other in others:
        assert other == first


def test_every_key_that_direct_reads_with_differing_defaults_is_written(content):
    in_training = {
        name: parameter.default for name, parameter in inspect.signature(build_mri_transforms).parameters.items()
    }
    in_inference = dict_flatten(remove_keys(OmegaConf.structured(TransformsConfig), "masking"))

    def plain(value):
        """The value with one kind of sequence, and one kind of no."""
        return tuple(value) if isinstance(value, list | ListConfig) else False if value is None else value

    differing = {
        name
        for name, value in in_inference.items()
        # Self-supervised splits are not used.
        if name in in_training and not name.startswith("mask_split") and plain(value) != plain(in_training[name])
    }
    assert {"image_center_crop", "sensitivity_maps_gaussian", "padding_eps"} <= differing
    for transforms in transforms_of(content):
        assert differing <= set(dict_flatten(transforms))
        assert "masking" in transforms
        # A list of numbers is refused by inference, and integers of masks become floats there.
        assert isinstance(transforms["cropping"]["crop"], str)
        for key in ("accelerations", "center_fractions"):
            assert all(isinstance(value, float) for value in transforms["masking"][key])


@pytest.fixture(scope="module")
def full_size_volume(tmp_path_factory):
    """A volume with more coils than the configurations keep."""
    return tiny_direct.write_volumes(tmp_path_factory.mktemp("full_size"), ["volume"], slices=1, coils=13, size=320)


@pytest.fixture(scope="module")
def demo_volume(tmp_path_factory):
    return tiny_direct.write_volumes(tmp_path_factory.mktemp("demo"), ["volume"], slices=1, coils=8, size=64)


@pytest.mark.parametrize(
    "path",
    [FOLDER / f"{name}.yaml" for name in ("deepen_1d4x", "varnet_2d4x", "demo_deepen", "demo_varnet")],
    ids=by_name,
)
def test_the_data_of_training_validation_and_inference_are_equal(
    tmp_path, path, content, full_size_volume, demo_volume
):
    data = demo_volume if path.name.startswith("demo") else full_size_volume
    environment = tiny_direct.build_environment(tmp_path, path)
    with tiny_direct.process_as_before():
        built = [
            build_training_datasets_from_environment(
                environment, environment.cfg[section].datasets, data_root=data, lists_root=data
            )[0]
            for section in ("training", "validation")
        ]
    samples = [default_collate([dataset[0]]) for dataset in (*built, inference_dataset(path, data))]
    size = content["training"]["datasets"][0]["transforms"]["augmentation"]["pad"]
    coils = content["training"]["datasets"][0]["transforms"]["compress_coils"] or 8
    assert samples[0]["masked_kspace"].shape == (1, coils, *size, 2)
    for sample in samples[1:]:
        assert set(sample) == set(samples[0])
        for key, value in samples[0].items():
            # Training compares the text SUPERVISED with an enumeration, and takes it for self-supervised; our engine
            # and VarNet's do not look at it.
            if isinstance(value, torch.Tensor) and key != "is_ssl":
                assert torch.equal(sample[key], value), key


# ---- What DIRECT's loops need


def test_settings_that_direct_stumbles_over_are_avoided(content):
    training, validation, inference = content["training"], content["validation"], content["inference"]
    # Its defaults of these two end the first validation, or crop outputs.
    assert validation["crop"] is None
    assert inference["crop"] is None
    # It writes no checkpoint before iteration 5, and accumulates gradients wrongly.
    assert training["num_iterations"] >= 6
    assert training["gradient_steps"] == 1
    assert training["checkpointer"]["checkpoint_steps"] <= training["num_iterations"]
    for transforms in transforms_of(content):
        assert transforms["delete_kspace"] is False
        assert transforms["use_seed"] is True
        assert transforms["image_recon_type"] == "SENSE_MOD"


@pytest.mark.parametrize("path", OURS, ids=by_name)
def test_priors_get_data_that_direct_has_not_scaled(content):
    for transforms in transforms_of(content):
        assert transforms["normalization"]["scaling_key"] is None


@pytest.mark.parametrize("path", DEEPEN, ids=by_name)
def test_the_end_of_the_warm_start_is_kept_as_a_checkpoint(content):
    last = content["model"]["objective"]["warm_start_iterations"] - 1
    assert last % content["training"]["checkpointer"]["checkpoint_steps"] == 0


@pytest.mark.parametrize("path", [path for path in DEEPEN if "posterior" in path.name], ids=by_name)
def test_the_posterior_configurations_differ_from_their_namesakes_in_what_is_estimated_alone(path, content):
    namesake = yaml.safe_load((FOLDER / path.name.replace("_posterior", "")).read_text(encoding="utf-8"))
    assert content["model"]["inference"].pop("estimator") == "posterior_mean"
    assert namesake["model"]["inference"].pop("estimator") == "map"
    assert content == namesake


# ---- The masks


def masks(content, size, number):
    """Masks of a configuration for different file names."""
    build = build_masking_function(**transforms_of(content)[0]["masking"])
    for index in range(number):
        seed = tuple(map(ord, f"data/volume_{index}.h5"))
        yield build(shape=(size, size, 2), seed=seed, return_acs=False).reshape(-1, size, 1).squeeze(-1)


@pytest.mark.parametrize("path", [path for path in FILES if path not in SMALL], ids=by_name)
def test_masks_have_the_acceleration_of_their_name_and_sample_the_disc_of_the_intensity_scale(path, content):
    problem = re.fullmatch(r"\w+?_([12])d(\d+)x(_posterior)?\.yaml", path.name)
    dimensions, acceleration = int(problem[1]), int(problem[2])
    for mask in masks(content, 320, 8):
        full = mask.expand(320, 320)
        assert 320 * 320 / int(full.sum()) == pytest.approx(acceleration, rel=0.03)
        assert bool(full[central_disc(320, 320)].all())
        # One-dimensional masks sample whole lines along the readout, two-dimensional ones single points.
        assert bool((full == full[:1]).all()) is (dimensions == 1)


@pytest.mark.parametrize("path", SMALL, ids=by_name)
def test_the_masks_of_the_small_ones_are_four_times_undersampled_and_sample_the_disc(content):
    for mask in masks(content, 64, 8):
        assert 64 * 64 / int(mask.sum()) == pytest.approx(4, rel=0.03)
        assert bool(mask[central_disc(64, 64)].all())
