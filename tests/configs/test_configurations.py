"""The committed configurations: sparse, the same data wherever DIRECT reads them, and what their names say."""

import inspect
import re

import pytest
import tiny_direct
import torch
from direct.common.subsample import build_masking_function
from direct.config.defaults import DefaultConfig, InferenceConfig, TrainingConfig, ValidationConfig
from direct.data.datasets_config import FastMRIConfig
from direct.data.mri_transforms import build_mri_transforms
from direct.environment import load_model_config_from_name
from direct.train import build_training_datasets_from_environment
from direct.utils import dict_flatten, remove_keys
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.utils.data import default_collate

from direct_deepen.data.cases import inference_dataset
from direct_deepen.data.volumes import looked_at
from direct_deepen.inference import inferences
from direct_deepen.objectives import objectives
from direct_deepen.physics.scale import central_disc

FOLDER = tiny_direct.REPOSITORY / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
MASKS = sorted((FOLDER / "masks").glob("*.yaml"))
POSTERIOR = [path for path in FILES if path.stem.endswith("_posterior")]


def by_name(path):
    return path.stem


@pytest.fixture(scope="module", params=FILES, ids=by_name)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def content(path):
    return OmegaConf.load(path)


@pytest.fixture(scope="module")
def schema(content):
    """Every key that DIRECT knows, with its default, but for the datasets of training and validation."""
    result = OmegaConf.structured(DefaultConfig)
    result.model = load_model_config_from_name(content.model.model_name)
    result.training, result.validation, result.inference = TrainingConfig, ValidationConfig, InferenceConfig
    result.inference.dataset = FastMRIConfig
    for registry in (objectives, inferences) if content.model.model_name.startswith("deepen.") else ():
        name = content.model[registry.kind].name
        result.model[registry.kind] = OmegaConf.to_container(OmegaConf.structured(registry.find(name)))
    return result


@pytest.fixture(scope="module")
def merged(schema, content):
    return OmegaConf.merge(schema, content)


def leaves(section, prefix=""):
    """Keys in dots, and values, of all that is no section."""
    for key, value in section.items():
        if isinstance(value, DictConfig):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value):
    """The value with one kind of sequence, and one kind of no."""
    return tuple(value) if isinstance(value, list | ListConfig) else False if value is None else value


def arguments(function, given):
    """The arguments that a function is called with: those that are given, and its defaults."""
    parameters = inspect.signature(function).parameters
    defaults = {name: plain(parameter.default) for name, parameter in parameters.items()}
    return defaults | {key: plain(value) for key, value in given.items() if key in parameters}


# ---- What stands in a file


def test_only_what_differs_from_the_defaults_is_written(content, schema):
    # Which parts are chosen is written always.
    chosen = ("model.objective.name", "model.inference.name")
    written = [(key, value) for key, value in leaves(content) if ".dataset" not in key and key not in chosen]
    assert written
    # A key that is unknown is an error here.
    assert [key for key, value in written if plain(OmegaConf.select(schema, key)) == plain(value)] == []
    assert [key for key, _ in written if OmegaConf.select(schema, key.rpartition(".")[0]) is None and "." in key] == []


def test_training_validation_and_inference_read_the_same_transforms(merged):
    # Where training has several masks, each is that of a dataset, and the first that of validation and inference.
    first, *further = merged.training.datasets
    datasets = [first, *merged.validation.datasets, merged.inference.dataset]
    assert len(datasets) == 3
    for other in further:
        assert remove_keys(other.transforms, "masking") == remove_keys(first.transforms, "masking")
    # Lists of datasets are not typed: what they leave out has the defaults of a function, and not those of a class.
    masks = [arguments(build_masking_function, dataset.transforms.masking) for dataset in datasets]
    others = [
        arguments(build_mri_transforms, dict_flatten(dict(remove_keys(dataset.transforms, "masking"))))
        for dataset in datasets
    ]
    # Self-supervised splits are not used.
    others = [{key: value for key, value in each.items() if not key.startswith("mask_split")} for each in others]
    assert masks[0] == masks[1] == masks[2]
    assert others[0] == others[1] == others[2]


def test_settings_that_direct_stumbles_over_are_avoided(path, merged):
    # Its default of this ends the first validation.
    assert merged.validation.crop is None
    # It writes no checkpoint before iteration 5, and accumulates gradients wrongly.
    assert merged.training.num_iterations >= 6
    assert merged.training.gradient_steps == 1
    kept = merged.training.checkpointer.checkpoint_steps
    assert kept <= merged.training.num_iterations
    transforms = merged.inference.dataset.transforms
    assert transforms.delete_kspace is False
    assert transforms.use_seed is True
    assert transforms.image_recon_type == "SENSE_MOD"
    # Engines of this package scale intensities themselves.
    assert (transforms.normalization.scaling_key is None) is merged.model.model_name.startswith("deepen.")
    if "warm_start_iterations" in merged.model.get("objective", {}):
        # The end of the warm start is kept.
        assert (merged.model.objective.warm_start_iterations - 1) % kept == 0


def test_direct_builds_model_and_engine(tmp_path, path):
    environment = tiny_direct.build_environment(tmp_path, path)
    assert sum(parameter.numel() for parameter in environment.engine.model.parameters()) > 1000


@pytest.mark.parametrize("path", POSTERIOR, ids=by_name, indirect=True)
def test_the_posterior_configurations_differ_from_their_namesakes_in_what_is_estimated_alone(schema, content, path):
    content, namesake = content.copy(), OmegaConf.load(path.with_stem(path.stem.removesuffix("_posterior")))
    assert content.model.pop("inference").name == "langevin"
    assert namesake.model.pop("inference").name == "map"
    # A training of hours has DIRECT's maps, which cost nothing; what is made with its weights may have better ones.
    assert content.model.pop("coil_maps", "espirit") == "espirit"
    assert "coil_maps" not in namesake.model
    assert OmegaConf.merge(schema, content) == OmegaConf.merge(schema, namesake)


def test_every_file_is_named_by_the_page_on_training():
    page = (tiny_direct.REPOSITORY / "docs" / "train.md").read_text(encoding="utf-8")
    assert [path.stem for path in FILES + MASKS if f"`{path.stem}`" not in page] == []


# ---- The data


@pytest.mark.parametrize("path", [FOLDER / "deepen_2d4x.yaml", FOLDER / "demo_varnet.yaml"], ids=by_name, indirect=True)
def test_the_data_of_training_validation_and_inference_are_equal(tmp_path, path, merged):
    (height, width), coils = merged.inference.dataset.transforms.augmentation.pad, 13
    data = tiny_direct.write_volumes(tmp_path / "data", ["volume"], slices=1, coils=coils, size=height)
    environment = tiny_direct.build_environment(tmp_path, path)
    with tiny_direct.process_as_before():
        built = [
            build_training_datasets_from_environment(
                environment, environment.cfg[section].datasets, data_root=data, lists_root=data
            )[0]
            for section in ("training", "validation")
        ]
    samples = [default_collate([dataset[0]]) for dataset in (*map(looked_at, built), inference_dataset(path, data))]
    coils = merged.inference.dataset.transforms.compress_coils or coils
    assert samples[0]["masked_kspace"].shape == (1, coils, height, width, 2)
    for sample in samples[1:]:
        assert set(sample) == set(samples[0])
        for key, value in samples[0].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(sample[key], value), key


# ---- The masks


def test_all_files_have_the_mask_of_their_names(merged):
    mask = OmegaConf.load(FOLDER / "masks" / "2d4x.yaml")
    transforms = merged.inference.dataset.transforms
    assert OmegaConf.merge(transforms, mask.transforms) == transforms


@pytest.mark.parametrize("path", MASKS, ids=by_name)
@pytest.mark.parametrize("size", [320, 64])
def test_masks_have_the_acceleration_of_their_name_and_sample_the_disc_of_the_intensity_scale(path, size):
    dimensions, acceleration = map(int, re.fullmatch(r"([12])d(\d)x", path.stem).groups())
    build = build_masking_function(**OmegaConf.load(path).transforms.masking)
    for index in range(8):
        seed = tuple(map(ord, f"data/volume_{index}.h5"))
        mask = build(shape=(size, size, 2), seed=seed, return_acs=False).reshape(-1, size, 1).squeeze(-1)
        full = mask.expand(size, size)
        assert size * size / int(full.sum()) == pytest.approx(acceleration, rel=0.03)
        assert bool(full[central_disc(size, size)].all())
        # One-dimensional masks sample whole lines along the readout, two-dimensional ones single points.
        assert bool((full == full[:1]).all()) is (dimensions == 1)
