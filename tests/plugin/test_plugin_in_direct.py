"""DIRECT as installed finds our models by its own means, and is not changed by that in a single byte."""

import base64
import hashlib
import importlib.metadata
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import spawned
import tiny_direct
from direct.environment import load_model_config_from_name, load_model_from_name
from direct.nn.deepen import deepen_engine, energies
from direct.nn.deepen import priors as plugin
from direct.nn.mri_models import MRIModelEngine
from omegaconf.errors import ConfigKeyError

from direct_deepen import priors
from direct_deepen.engines.engine import DeepenEngine

NAMES = [
    f"deepen.{module.__name__.rpartition('.')[2]}.{name}"
    for module in (plugin, energies)
    for name in vars(module)
    if name[0].isupper()
]


# ---- DIRECT is left alone


def test_every_installed_file_of_direct_is_byte_for_byte_that_of_its_wheel():
    distribution = importlib.metadata.distribution("direct-recon")
    recorded = [path for path in distribution.files if path.hash is not None and path.suffix != ".pyc"]
    sources = [path for path in recorded if path.parts[0] == "direct" and path.suffix == ".py"]
    assert len(sources) > 100
    for path in recorded:
        digest = hashlib.new(path.hash.mode, path.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == path.hash.value, path


def test_no_name_in_direct_is_replaced_by_one_of_ours():
    load_model_from_name("deepen.priors.QuadraticEnergy")
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "direct"}
    assert len(modules) > 50
    ours = [
        f"{name}.{attribute}"
        for name, module in modules.items()
        if not name.startswith("direct.nn.deepen")
        for attribute, value in list(vars(module).items())
        if str(getattr(value, "__module__", "")).startswith("direct_deepen")
    ]
    assert ours == []


# ---- Found by name


@pytest.mark.parametrize("name", NAMES)
def test_direct_finds_model_configuration_and_engine_by_name(tmp_path, name):
    model, size = load_model_from_name(name), {"hidden_channels": 3}
    # These ask nothing of a prior but to be called with an image, or with an image and a noise level.
    objective, inference = "denoising", "proximal_iteration"
    if name.endswith("NoiseConditionalEnergy"):
        size, objective, inference = {"channels": [3, 4]}, "distillation", "annealed_langevin"
    if name.endswith("DiffusionDenoiser"):
        size, objective, inference = {"channels": [3, 4]}, "diffusion", "diffusion_sampling"
    if name.endswith("External"):
        size = {"prior": "direct_deepen:QuadraticEnergy", "arguments": {"hidden_channels": 3, "num_layers": 2}}
    parts = {"objective": {"name": objective}, "inference": {"name": inference}}
    section = {"model_name": name, "engine_name": "DeepenEngine", **size, **parts}
    config = tiny_direct.changed(tiny_direct.configuration(), {"model": section})
    environment = tiny_direct.build_environment(tmp_path, config)
    assert type(environment.engine.model) is model
    assert isinstance(environment.engine, MRIModelEngine)
    # What is not written has the default of the configuration class, and what is written reaches the network.
    assert environment.cfg.model.noise_std == load_model_config_from_name(name)().noise_std
    assert 3 in {len(parameter) for parameter in environment.engine.model.parameters()}
    of_package = getattr(priors, name.rpartition(".")[2], None)
    assert of_package is None or any(isinstance(module, of_package) for module in environment.engine.model.modules())


def test_a_spawned_process_finds_the_models_too():
    # A worker of torch's loaders or of a multi-GPU run knows nothing but what is installed.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(spawned.names_found_by_direct, NAMES).result()
    names = [name.rpartition(".")[2] for name in NAMES]
    assert found == [f"direct_deepen.engines.models.{name}" for name in names]


def test_the_engine_that_direct_finds_is_the_one_of_the_package():
    assert deepen_engine.DeepenEngine is DeepenEngine


# ---- Misspelt


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.model_name", "deepen.priors.QuadraticEnrgy"),
        ("model.model_name", "deepen.prior.QuadraticEnergy"),
        ("model.engine_name", "DeepnEngine"),
    ],
)
def test_a_misspelt_name_ends_with_one_line_of_direct(tmp_path, caplog, key, value):
    config = tiny_direct.changed(tiny_direct.configuration(), {key: value})
    with pytest.raises(SystemExit):
        tiny_direct.build_engine(tmp_path, config)
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "does not exist" in error
    assert value.split(".")[1 if "prior." in value else -1] in error
    assert "\n" not in error


@pytest.mark.parametrize(
    "key", ["model.hidden_chanels", "model.noise_sdt", "training.learning_rate", "inference.dataset.transform"]
)
def test_a_misspelt_key_is_named_by_direct(tmp_path, key):
    config = tiny_direct.changed(tiny_direct.configuration(), {key: 1})
    with pytest.raises(ConfigKeyError, match=key.rpartition(".")[2]):
        tiny_direct.build_engine(tmp_path, config)
