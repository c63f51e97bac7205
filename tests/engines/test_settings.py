"""The model section of a configuration: every key refuses what it cannot mean, in one line with its full name."""

import dataclasses
import inspect
import logging
import math
import signal
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
import tiny_direct
import torch
from direct.environment import load_model_config_from_name, load_model_from_name
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from direct_deepen.engines import models
from direct_deepen.engines.commands import bad_input_told, exit_on_bad_input
from direct_deepen.engines.plugin import config as plugin_config
from direct_deepen.engines.plugin import priors as plugin_priors
from direct_deepen.engines.settings import EngineSettings, system_of
from direct_deepen.errors import DeepenError, DivergenceError
from direct_deepen.inference import inferences
from direct_deepen.objectives import objectives
from direct_deepen.priors import at_noise, depends_on_noise

PATHS = {"teacher_configuration", "prewhitening", "teacher_checkpoint"}
METRIC = "metric"
"""What is checked against the metrics of validation when training begins."""
PARTS = [(registry, name) for registry in (objectives, inferences) for name in registry.names]


@dataclasses.dataclass
class Key:
    """A setting: its place in the model section, its type, its default, and its limits."""

    path: str
    kind: Any
    default: Any
    limits: Any


def keys_of(settings: type, path: str) -> Iterator[Key]:
    """All keys of a dataclass of settings, and of the dataclasses in it."""
    kinds = get_type_hints(settings)
    for entry in dataclasses.fields(settings):
        if dataclasses.is_dataclass(kinds[entry.name]):
            yield from keys_of(kinds[entry.name], f"{path}{entry.name}.")
        else:
            default = None if entry.default is dataclasses.MISSING else entry.default
            yield Key(f"{path}{entry.name}", kinds[entry.name], default, entry.metadata.get("limits"))


def all_keys() -> list[tuple[dict[str, Any], Key, type]]:
    """Every key with the section that it is a key of, which names the part, and the part."""
    found = [({}, key, EngineSettings) for key in keys_of(EngineSettings, "") if key.kind != dict[str, Any]]
    for registry, name in PARTS:
        part = registry.find(name)
        found += [({registry.kind: {"name": name}}, key, part) for key in keys_of(part, f"{registry.kind}.")]
    return found


def is_number(kind: Any) -> bool:
    return kind in (float, int, float | None, float | int | str | None)


LIMITED = [(section, key) for section, key, _ in all_keys() if key.limits is not None]
OTHERS = [(key, part) for _, key, part in all_keys() if key.limits is None]


def just_outside(key: Key) -> Iterator[Any]:
    """The values nearest to those that the limits allow, and what no number is."""
    limits = key.limits
    if limits.choices:
        yield "other"
    step = 1 if key.kind is int else 0
    if limits.above is not None:
        yield limits.above
    if limits.least is not None:
        yield limits.least - step if step else math.nextafter(limits.least, -math.inf)
    if limits.below is not None:
        yield limits.below
    if limits.most is not None:
        yield limits.most + step if step else math.nextafter(limits.most, math.inf)
    if is_number(key.kind):
        yield from (math.nan, -math.inf, "many")
        if not limits.infinite:
            yield math.inf
    if key.kind is int:
        yield 1.5
    if key.default is not None:
        yield None


@pytest.mark.parametrize(("section", "key"), LIMITED, ids=[f"{key.path} {section}" for section, key in LIMITED])
def test_a_value_that_is_not_allowed_is_refused_by_the_full_name_of_its_key(one_line_error, section, key):
    # A number, or a word, or what may be either.
    assert (is_number(key.kind), bool(key.limits.choices)) in (
        [(True, True)] if key.kind == float | int | str | None else [(True, False), (False, True)]
    )
    system_of(tiny_direct.changed(section, {key.path: key.default}))
    for value in just_outside(key):
        with one_line_error(f"model.{key.path}", "allowed"):
            system_of(tiny_direct.changed(section, {key.path: value}))


@pytest.mark.parametrize(("key", "part"), OTHERS, ids=[f"{part.__name__} {key.path}" for key, part in OTHERS])
def test_a_key_without_limits_is_a_switch_or_a_file_or_a_list_that_the_part_checks(key, part):
    name = key.path.rpartition(".")[2]
    assert key.kind is bool or name in PATHS or name == METRIC or (key.kind == list[float] and hasattr(part, "check"))


SAMPLERS = ("langevin", "fast", "diffusion_sampling", "annealed_langevin")
PAIRS = [
    *(
        ("inference", name, {"quantiles": quantiles})
        for name in SAMPLERS
        for quantiles in ([0.0, 0.5], [0.5, 1.0], [0.5, 0.5], [0.9, 0.1], [5.0, 95.0], [math.nan])
    ),
    ("inference", "langevin", {"keep": 9, "num_steps": 8}),
    ("inference", "langevin", {"momentum": 0.5}),
    ("inference", "fast", {"momentum": 0.5, "averaged_noise": False}),
    ("inference", "annealed_langevin", {"largest_noise_std": 0.01, "smallest_noise_std": 0.01}),
    ("objective", "diffusion", {"largest_noise_std": 0.1, "smallest_noise_std": 0.2}),
    ("objective", "distillation", {"largest_noise_std": 0.1, "smallest_noise_std": 0.1}),
    ("objective", "contrastive_over_levels", {"largest_data_noise_std": 0.1, "smallest_data_noise_std": 0.1}),
    ("objective", "contrastive_over_levels", {"chains.start": "persistent"}),
]


@pytest.mark.parametrize("weight", [0.25, 1, "curvature", None])
def test_a_number_or_a_word_or_neither(weight):
    section = {"inference": {"name": "langevin", "preconditioner": weight}}
    assert system_of(section).inference.preconditioner == weight


@pytest.mark.parametrize(("value", "words"), [(-1, "> 0, or curvature"), ([1], "a number or a text or null")])
def test_what_is_neither_is_told_what_is_allowed(one_line_error, value, words):
    with one_line_error("model.inference.preconditioner", words):
        system_of({"inference": {"name": "langevin", "preconditioner": value}})


@pytest.mark.parametrize(("kind", "name", "settings"), PAIRS)
def test_settings_that_do_not_go_together_are_refused_by_the_full_name_of_the_first(
    one_line_error, kind, name, settings
):
    with one_line_error(f"model.{kind}.{next(iter(settings))}", "allowed"):
        system_of({kind: {"name": name, **settings}})


def test_every_sampler_is_among_them():
    assert {name for name in inferences.names if "quantiles" in inferences.find(name).__dataclass_fields__} == {
        *SAMPLERS
    }


@pytest.mark.parametrize(("registry", "name"), PARTS)
def test_a_key_that_a_part_has_not_is_named_with_those_it_has(one_line_error, registry, name):
    allowed = [entry.name for entry in dataclasses.fields(registry.find(name))]
    with one_line_error(f"model.{registry.kind}.misspelt", "allowed", *allowed):
        system_of({registry.kind: {"name": name, "misspelt": 1}})


@pytest.mark.parametrize("name", ["other", "no_such_module:Part", "math:no_such_part"])
@pytest.mark.parametrize("registry", [objectives, inferences], ids=["objective", "inference"])
def test_a_part_that_does_not_exist_is_named_with_those_that_do(one_line_error, registry, name):
    with one_line_error(f"model.{registry.kind}.name is {name!r}", "allowed", *registry.names):
        system_of({registry.kind: {"name": name}})


def test_what_the_configuration_says_arrives_in_the_settings():
    system = system_of(
        {
            "noise_std": 0.02,
            "objective": {"name": "contrastive", "chains": {"num_steps": 17}, "guard": {"interval": 3}},
            "inference": {"name": "langevin", "keep": 2},
        }
    )
    assert system.settings.noise_std == system.objective.shared.noise_std == system.inference.shared.noise_std == 0.02
    assert (system.objective.chains.num_steps, system.objective.guard.interval) == (17, 3)
    assert (system.inference.keep, system.inference.num_steps) == (2, inferences.find("langevin").num_steps)


# ---- The models as DIRECT finds them


@pytest.mark.parametrize("name", [name for name in vars(plugin_priors) if name[0].isupper()])
def test_the_keys_of_a_model_are_those_of_its_network_and_of_the_engine(name):
    model = load_model_from_name(f"deepen.priors.{name}")
    prior = model.__mro__[model.__mro__.index(models.DirectModel) + 1]
    # The number of dimensions is no choice of a configuration: DIRECT's data are slices here.
    network = set(inspect.signature(prior.__init__).parameters) - {"self", "dimensions"}
    engine = {field.name for field in dataclasses.fields(EngineSettings)}
    keys = {field.name for field in dataclasses.fields(load_model_config_from_name(f"deepen.priors.{name}"))}
    assert keys == network | engine | {"model_name", "engine_name"}
    # DIRECT drops keys that the constructor does not take.
    assert inspect.Parameter.VAR_KEYWORD in {entry.kind for entry in inspect.signature(model).parameters.values()}
    assert hasattr(plugin_config, f"{name}Config")


def test_energies_have_the_names_of_before_too(tmp_path):
    config = tiny_direct.changed(tiny_direct.configuration(), {"model.model_name": "deepen.energies.QuadraticEnergy"})
    engine = tiny_direct.build_engine(tmp_path, config)
    assert isinstance(engine.model, plugin_priors.QuadraticEnergy)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("Denoiser", {"inference.name": "map"}, "inference.name"),
        ("Denoiser", {"inference.name": "unrolled_gradient"}, "inference.name"),
        ("QuadraticEnergy", {"inference.name": "annealed_langevin"}, "inference.name"),
        ("QuadraticEnergy", {"objective.name": "distillation"}, "objective.name"),
        ("ImageNetwork", {"objective.name": "contrastive"}, "objective.name"),
        ("QuadraticEnergy", {"objective.name": "contrastive_over_levels"}, "objective.name"),
    ],
)
def test_a_part_that_asks_for_another_prior_is_refused(one_line_error, name, changes, key):
    size = {"hidden_channels": 4, "num_layers": 3, "activation": "relu"}
    section = {**size, "objective": {"name": "denoising"}, "inference": {"name": "proximal_iteration"}}
    model = getattr(models, name)
    model.of(section | {"weight": 0.25})
    with one_line_error(f"model.{key}", name, "allowed"):
        model.of(tiny_direct.changed(section | {"weight": 0.25}, changes))


@pytest.mark.parametrize(
    ("name", "objective", "inference", "key"),
    [
        ("NoiseConditionalEnergy", "contrastive_over_levels", "proximal_iteration", "inference.name"),
        ("NoiseConditionalEnergy", "distillation", "diffusion_sampling", "inference.name"),
        ("NoiseConditionalEnergy", "diffusion", "map", "objective.name"),
        ("NoiseConditionalEnergy", "reconstruction", "map", "objective.name"),
        ("DiffusionDenoiser", "denoising", "diffusion_sampling", "objective.name"),
        ("DiffusionDenoiser", "diffusion", "equilibrium", "inference.name"),
        ("ImageNetwork", "diffusion", "equilibrium", "objective.name"),
    ],
)
def test_a_part_that_calls_a_prior_otherwise_than_it_can_be_is_refused(one_line_error, name, objective, inference, key):
    section = OmegaConf.to_container(OmegaConf.structured(getattr(models, f"{name}Config")))
    small = {"channels": [3, 4], "num_blocks": 1} if "channels" in section else {"hidden_channels": 3, "num_layers": 2}
    parts = {"objective": {"name": objective}, "inference": {"name": inference}}
    with one_line_error(f"model.{key}", name, "allowed"):
        getattr(models, name).of(section | small | parts)


def test_a_prior_from_outside_has_the_methods_of_its_own():
    section = {
        "prior": "direct_deepen.priors:NoiseConditionalEnergy",
        "arguments": {"channels": [3, 4], "num_blocks": 1},
        "objective": {"name": "distillation"},
        "inference": {"name": "annealed_langevin"},
    }
    model = models.External.of(section)
    image = torch.ones(1, 8, 8, dtype=torch.complex64)
    assert torch.equal(model.at(0.3).value_and_grad(image)[1], model.prior.at(0.3).value_and_grad(image)[1])
    assert not hasattr(model, "value_and_grad")
    # An energy for every noise, of what the model passes questions on to.
    assert depends_on_noise(model)
    assert not depends_on_noise(models.External.of({"prior": "direct_deepen.priors:QuadraticEnergy", "arguments": {}}))
    assert torch.equal(at_noise(model, 0.1)(image), model.prior.at_noise(0.1)(image))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"prior": "", "arguments": {}}, ["model.prior is ''"]),
        ({"prior": "no_such_module:Energy", "arguments": {}}, ["model.prior", "no_such_module"]),
        ({"prior": "direct_deepen:QuadraticEnergy", "arguments": {"layers": 3}}, ["model.arguments", "layers"]),
    ],
)
def test_a_prior_from_outside_that_cannot_be_made_is_named(one_line_error, section, words):
    with one_line_error(*words, "allowed"):
        models.External.of(section)


# ---- Inside DIRECT's command


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("demo_deepen", {"model.noise_std": -1.0}, ["model.noise_std", "-1.0"]),
        ("demo_deepen", {"model.inference.name": "zero"}, ["model.inference.name", "zero"]),
        ("demo_deepen", {"model.activation": "tanh"}, ["activation", "tanh"]),
        ("demo_deepen", {"model.num_layers": 1}, ["num_layers", "1"]),
        ("demo_deepen", {"model.weight": 0.0}, ["weight", "0.0"]),
        ("demo_deepen", {"physics.forward_operator": "fft2(centered=False)"}, ["physics.backward_operator", "'ifft2'"]),
        ("phantom_elder", {"model.inference.step_size": 0.0}, ["model.inference.step_size", "0.0"]),
        ("phantom_mol", {"model.inference.data_weight": -1.0}, ["model.inference.data_weight", "-1.0"]),
        ("phantom_pnp_ista", {"model.hidden_channels": 0}, ["hidden_channels", "0"]),
    ],
)
def test_a_bad_setting_ends_the_command_with_exit_code_2_and_one_line(
    tmp_path, exit_with_one_line, name, changes, words
):
    with exit_with_one_line(*words, "allowed"):
        tiny_direct.direct_train(tmp_path, tiny_direct.changed(tiny_direct.configuration(name), changes), tmp_path)


@pytest.mark.parametrize(("key", "value"), [("model.no_such_key", 1), ("model.noise_std", "loud")])
def test_a_key_or_type_that_the_model_section_has_not_is_named_by_direct(tmp_path, key, value):
    with pytest.raises(OmegaConfBaseException, match=key.removeprefix("model.")):
        tiny_direct.build_engine(tmp_path, tiny_direct.changed(tiny_direct.configuration(), {key: value}))


def test_without_any_log_the_one_line_goes_to_the_error_output(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit) as caught, exit_on_bad_input():
        raise DeepenError("model.noise_std is 0.0; allowed: > 0")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "direct-deepen: error: model.noise_std is 0.0; allowed: > 0\n"


def test_outside_of_directs_commands_bad_input_is_an_error_that_can_be_caught(tmp_path, batch, one_line_error):
    signals = signal.getsignal(signal.SIGINT)
    config = tiny_direct.changed(tiny_direct.configuration(), {"model.noise_std": -1.0})
    with one_line_error("model.noise_std"):
        tiny_direct.build_engine(tmp_path, config)
    with one_line_error("model.noise_std"):
        models.QuadraticEnergy(**config["model"])
    engine = tiny_direct.build_engine(tmp_path, tiny_direct.configuration())
    with one_line_error("device is 'cuda:7'"):
        engine.model.to("cuda:7")
    engine.model.eval()
    with one_line_error("sensitivity"):
        engine._do_iteration(batch | {"sensitivity_map": batch["sensitivity_map"][:, :2]})
    assert signal.getsignal(signal.SIGINT) is signals


def wrapped_by_directs_loop():
    try:
        raise DivergenceError("one line")
    except DeepenError as error:
        raise RuntimeError(error) from error


def handed_over_by_a_process_that_loads_data():
    raise DeepenError(
        "Caught in a worker\nTraceback (most recent call last):\ndirect_deepen.errors.DeepenError: one line"
    )


@pytest.mark.parametrize("fail", [wrapped_by_directs_loop, handed_over_by_a_process_that_loads_data])
def test_bad_input_that_comes_through_direct_is_one_line_again(fail):
    with pytest.raises(DeepenError, match=r"^one line$"), bad_input_told():
        fail()


def test_an_error_that_is_no_bad_input_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="out of memory"), exit_on_bad_input():
        raise RuntimeError("out of memory")


def test_settings_of_a_training_that_goes_on_may_be_changed_from_python(tmp_path, one_line_error):
    engine = tiny_direct.build_engine(tmp_path, tiny_direct.configuration())
    engine.configure("inference.prior_weight", 2.0)
    assert engine.inference.prior_weight == 2.0
    with one_line_error("model.inference.prior_weight", "allowed"):
        engine.configure("inference.prior_weight", -2.0)
    assert engine.inference.prior_weight == 2.0
    assert OmegaConf.to_container(engine.cfg.model.inference).get("prior_weight") is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("inference.max_iterations", 8.0, ("'8.0'", "allowed: an integer")),
        ("inference.max_iterations", "8.0", ("'8.0'", "allowed: an integer")),
        ("inference.max_iterations", [8], ("'[8]'", "allowed: an integer")),
        ("inference.max_iterations", "${none}", ("'${none}'", "allowed")),
        ("inference.tolerance", "small", ("'small'", "allowed: a number")),
        ("objective.chains.num_steps", 8.5, ("'8.5'", "allowed: an integer")),
        ("objective.chains.num_stops", 8, ("num_stops", "allowed: random_phase")),
        ("hidden_channels", 8, ("no such setting", "allowed: noise_std")),
    ],
)
def test_a_changed_setting_of_another_type_is_one_line(tmp_path, one_line_error, key, value, words):
    engine = tiny_direct.build_engine(tmp_path, tiny_direct.configuration())
    engine.configure("inference.max_iterations", "8")
    with one_line_error(f"model.{key}", *words):
        engine.configure(key, value)
    assert engine.inference.max_iterations == 8
