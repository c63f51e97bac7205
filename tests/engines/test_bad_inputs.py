"""What is wrong with data, settings and files, and what one is told of it: one line, or a right answer all the same."""

import argparse
import io
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from yaml import YAMLError

from direct_deepen.cli.main import build_parser, main
from direct_deepen.data.batch import problem_from_batch
from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.fastmri_file import ismrmrd_header
from direct_deepen.engines.checkpoints import weights_of
from direct_deepen.engines.trained import load_denoiser, load_system, load_trained
from direct_deepen.errors import DeepenError
from direct_deepen.evaluation.sample_store import kept_posterior
from direct_deepen.inference.cost import cost_terms
from direct_deepen.objectives import energy_unit
from direct_deepen.physics.sense import sense
from direct_deepen.posterior.posterior_file import read_posterior
from direct_deepen.priors.pretrained import load_pretrained

KSPACE = tiny_direct.draw_kspace(0)
ODD = tiny_direct.draw_kspace(0, size=47)[:, :, 7:40]


def with_value(kspace, value):
    """K-space whose second slice holds a value somewhere."""
    changed = kspace.copy()
    changed[1, 0, 16, 16] = value
    return changed


def write(path, kspace=KSPACE, *, header=True, mask=None):
    """An HDF5 file of whatever kind of k-space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        if header is True:
            file["ismrmrd_header"] = ismrmrd_header(len(kspace), *KSPACE.shape[-2:]).encode()
        elif header:
            file["ismrmrd_header"] = header
        if mask is not None:
            file["mask"] = mask


def columns(value):
    """A mask of columns as fastMRI's test files have it, with a value where samples are."""
    mask = np.zeros(KSPACE.shape[-1])
    mask[12:20] = mask[::3] = value
    return mask


# ---- Data and settings of ``direct predict``


@dataclass
class Data:
    """What a folder holds, and words of the one line that ``direct predict`` is to say of it; none where it works."""

    name: str
    files: Callable[[Path], Any]
    words: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)


def directory(tmp_path):
    """A folder ``data``, named as DIRECT is told: masks follow from the path."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


OWN_MASK = {"inference.dataset.pass_mask": True} | {
    f"inference.dataset.transforms.{key}": None for key in ("masking", "cropping.crop", "augmentation.pad")
}
UNREAD = ("a.h5", "slice 0 cannot be read")
NO_PAIRS = ("a.h5: kspace has type", "allowed: complex")
NO_AXIS = ("a.h5: kspace has shape", "allowed")

REFUSED_DATA = [
    Data("real k-space", lambda d: write(d / "a.h5", KSPACE.real), NO_PAIRS),
    Data("integer k-space", lambda d: write(d / "a.h5", (99 * KSPACE.real).astype(int)), NO_PAIRS),
    Data("boolean k-space", lambda d: write(d / "a.h5", KSPACE.real > 0), NO_PAIRS),
    Data("text for k-space", lambda d: write(d / "a.h5", np.full(KSPACE.shape, b"x")), NO_PAIRS),
    Data("k-space of two axes", lambda d: write(d / "a.h5", KSPACE[0, 0]), NO_AXIS),
    Data("k-space of five axes", lambda d: write(d / "a.h5", np.stack([KSPACE, KSPACE])), NO_AXIS),
    Data("no coil", lambda d: write(d / "a.h5", KSPACE[:, :0]), NO_AXIS),
    Data("no row", lambda d: write(d / "a.h5", KSPACE[:, :, :0]), NO_AXIS),
    Data("not a number", lambda d: write(d / "a.h5", with_value(KSPACE, np.nan)), ("a.h5", "slice 1", "NaN")),
    Data("infinity", lambda d: write(d / "a.h5", with_value(KSPACE, np.inf)), ("a.h5", "slice 1", "infinite")),
    Data("too large", lambda d: write(d / "a.h5", KSPACE * np.complex64(1e25)), ("a.h5", "e+2", "1e-15 to 1e+15")),
    Data("too small", lambda d: write(d / "a.h5", KSPACE * np.complex64(1e-25)), ("a.h5", "e-2", "1e-15 to 1e+15")),
    Data(
        "a header that is no XML",
        lambda d: write(d / "a.h5", header=b"<no xml"),
        ("a.h5: ismrmrd_header", "unclosed token", "allowed"),
    ),
    Data(
        "a mask of zeros",
        lambda d: write(d / "a.h5", mask=columns(0)),
        ("a.h5", "`mask`", "0 samples", "allowed"),
        OWN_MASK,
    ),
]
"""What is found where a slice is read, by whatever command."""


@pytest.mark.parametrize("case", REFUSED_DATA, ids=lambda case: case.name)
def test_one_line_is_told_of(tmp_path, map_config, one_line_error, case):
    data = directory(tmp_path)
    case.files(data)
    config = tiny_direct.changed(map_config, case.changes)
    path = tiny_direct.write_configuration(tmp_path / "a.yaml", config)
    with one_line_error(*case.words):
        list(cases(inference_dataset(path, data)))


def test_a_slice_of_zeros_is_no_case(tmp_path, map_config):
    write(directory(tmp_path) / "a.h5", KSPACE * [[[[0]]], [[[1]]]])
    path = tiny_direct.write_configuration(tmp_path / "a.yaml", map_config)
    (case,) = cases(inference_dataset(path, tmp_path / "data"))
    assert case.slice_number == 1


REFUSED_PREDICTIONS = [
    *(case for case in REFUSED_DATA if case.name in ("real k-space", "infinity")),
    Data(
        "a volume of no slices among others",
        lambda d: (write(d / "a.h5", KSPACE[:0]), write(d / "b.h5")),
        ("a.h5", "no slices"),
    ),
    Data("a mask too short", lambda d: write(d / "a.h5", mask=columns(1)[:30]), ("a.h5", "mask", "(30,)"), OWN_MASK),
    Data("a mask that is not there", lambda d: write(d / "a.h5"), ("a.h5", "no `mask`"), OWN_MASK),
    Data(
        "two volumes of one name",
        lambda d: (write(d / "x" / "a.h5"), write(d / "y" / "a.h5")),
        ("x/a.h5 and data/y/a.h5", "both be written to a.h5", "different names"),
        {"inference.dataset.filenames_filter": ["data/x/a.h5", "data/y/a.h5"]},
    ),
    Data(
        "text and a folder beside a volume",
        lambda d: (write(d / "a.h5"), (d / "b.h5").write_text("text"), (d / "c.h5").mkdir()),
        ("2 of 3 files not read", "b.h5", "c.h5"),
    ),
    *(
        Data(f"{key}: {value}", lambda d: write(d / "a.h5"), words, {key: value})
        for key, value, words in (
            ("model.noise_std", -1.0, ("model.noise_std is -1.0", "allowed")),
            ("model.inference.max_iterations", 0, ("model.inference.max_iterations is 0", "allowed")),
            ("model.inference.misspelt", 9, ("model.inference.misspelt", "allowed", "max_iterations")),
            ("inference.batch_size", 0, ("inference.batch_size is 0", "allowed")),
            ("inference.metrics", ["sharpness"], ("metrics", "'sharpness'", "those of DIRECT")),
            ("inference.dataset.transforms.masking.accelerations", [0.0], (*UNREAD, "division by zero")),
        )
    ),
]


@pytest.mark.parametrize("case", REFUSED_PREDICTIONS, ids=lambda case: case.name)
def test_direct_predict_ends_with_one_line_about(tmp_path, map_config, checkpoint, exit_with_one_line, case):
    data = directory(tmp_path)
    case.files(data)
    config = tiny_direct.changed(map_config, case.changes)
    with exit_with_one_line(*case.words):
        tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    assert not list((tmp_path / "out").glob("*.h5*"))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory, map_config, checkpoint):
    """``predicted(files)``: what DIRECT's reconstruction of the only volume is."""

    def predict(files, changes=None):
        folder = tmp_path_factory.mktemp("predicted")
        data = directory(folder)
        files(data)
        config = tiny_direct.changed(map_config, changes or {})
        output = tiny_direct.direct_predict(folder / "out", config, data, checkpoint)
        (path,) = [path for path in output.glob("*.h5") if "posterior" not in path.name]
        with h5py.File(path) as file:
            return file["reconstruction"][()]

    return predict


@pytest.fixture(scope="module")
def expected(predicted):
    """The reconstruction of the volume that is as it should be."""
    return predicted(lambda d: write(d / "a.h5"))


def with_others(folder):
    write(folder / "a.h5", KSPACE.astype(np.complex128))
    (folder / "._a.h5").write_text("of macOS")
    (folder / "b.txt").write_text("text")


SAME = {
    "double precision, beside what nobody takes for a volume": with_others,
    "real and imaginary part apart, without a header": lambda d: write(
        d / "a.h5", KSPACE.view(np.float32).reshape(*KSPACE.shape, 2), header=None
    ),
}


@pytest.mark.parametrize("files", SAME)
def test_direct_predict_gives_the_same_image_with(predicted, expected, files):
    np.testing.assert_array_equal(predicted(SAME[files]), expected)


def test_k_space_of_other_units_gives_the_image_in_these_units_to_the_last_digit(predicted, expected):
    found = predicted(lambda d: write(d / "a.h5", KSPACE * np.complex64(2.0**-40)))
    np.testing.assert_array_equal(found, expected * np.float32(2.0**-40))


def test_k_space_of_units_that_are_no_power_of_two_is_rounded_once_more(predicted, expected):
    found = predicted(lambda d: write(d / "a.h5", KSPACE * np.complex64(1e12)))
    # Some 10⁻⁷, carried along by fifteen iterations.
    np.testing.assert_allclose(found, expected * 1e12, rtol=0, atol=1e-4 * 1e12 * expected.max())


def test_a_mask_samples_where_it_is_not_zero(predicted):
    ones = columns(1)
    values = np.where(ones, np.resize([2, 0.5, -1, np.nan], len(ones)), 0)
    of_ones, of_values = (
        predicted(lambda d, mask=mask: write(d / "a.h5", mask=mask), OWN_MASK) for mask in (ones, values)
    )
    np.testing.assert_array_equal(of_values, of_ones)


SIZES = {
    "odd sizes": ODD,
    "one coil": tiny_direct.draw_kspace(0, slices=1, coils=1),
    "64 coils": tiny_direct.draw_kspace(0, slices=1, coils=64),
}


@pytest.fixture(scope="module", params=SIZES)
def of_size(request, tmp_path_factory, mean_config, checkpoint):
    """A volume of such a size, its posterior as ``direct predict`` writes it, and its problems."""
    kspace = SIZES[request.param]
    folder = tmp_path_factory.mktemp("sizes")
    data = directory(folder)
    write(data / "a.h5", kspace, header=None)
    changes = {"max_iterations": 500, "tolerance": 1e-8, "keep": 2, "save_samples": True}
    config = tiny_direct.changed(mean_config, {f"model.inference.{key}": value for key, value in changes.items()})
    config = tiny_direct.with_transforms(config, {"augmentation.pad": list(kspace.shape[2:])})
    output = tiny_direct.direct_predict(folder / "out", config, data, checkpoint)
    with chdir(folder):
        problems = [case.problem for case in cases(inference_dataset(output / "used.yaml", Path("data")))]
    posterior = read_posterior(output / "a.posterior.h5", num_samples=6)
    with h5py.File(output / "a.h5") as file:
        reconstruction = file["reconstruction"][()]
    energy = load_trained(checkpoint, output / "used.yaml")
    return SimpleNamespace(
        kspace=kspace, problems=problems, energy=energy, arrays=posterior.arrays, reconstruction=reconstruction
    )


def terms(of_size, number, image):
    """Cost and gradient at an image in the units of the file, complex (row, column)."""
    problem = of_size.problems[number]
    scaled = torch.as_tensor(image)[None] / problem.scale[:, None, None]
    found = cost_terms(problem.A, problem.masked_kspace, of_size.energy, scaled.to(torch.complex64))
    return SimpleNamespace(cost=float(found.cost), gradient=float(found.gradient.norm()))


def test_data_of_sizes_out_of_the_ordinary_are_those_of_the_object(of_size):
    kspace = of_size.kspace
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), (-2, -1))
    reference = np.linalg.norm(images, axis=1)
    found = np.stack([p.to_data_units(sense(p.A, p.masked_kspace)).abs()[0].numpy() for p in of_size.problems])
    assert found.shape == reference.shape
    # A quarter of the samples, dense in the centre, of smooth objects. A shift by one pixel makes 0.12 and more.
    assert np.linalg.norm(found - reference) < 0.1 * np.linalg.norm(reference)


def test_the_map_image_of_sizes_out_of_the_ordinary_is_a_minimum_of_the_cost(of_size):
    for number, problem in enumerate(of_size.problems):
        start = problem.to_data_units(sense(problem.A, problem.masked_kspace))[0]
        found, before = terms(of_size, number, of_size.arrays["map"][number]), terms(of_size, number, start)
        assert found.cost < before.cost
        assert found.cost == pytest.approx(of_size.arrays["cost"][number], rel=1e-5)
        # The energy has a continuous gradient; single precision leaves a tenth of this.
        assert found.gradient < 1e-3 * before.gradient


def test_samples_of_sizes_out_of_the_ordinary_are_as_far_above_the_minimum_as_noise_is(of_size):
    slices, _, *size = of_size.kspace.shape
    assert of_size.reconstruction.shape == of_size.arrays["mean"].shape == (slices, *size)
    np.testing.assert_allclose(of_size.reconstruction, np.abs(of_size.arrays["mean"]), rtol=1e-5)
    for number in range(len(of_size.problems)):
        samples = of_size.arrays["samples"][number]
        # In equilibrium every degree of freedom has ε²/4 of cost on average: the energy E₀ of data noise in all. Chains
        # of eight steps from the minimum are below that in flat directions, and steps of unit length above it in steep.
        unit = energy_unit(samples[0].size, 0.01)
        least = terms(of_size, number, of_size.arrays["map"][number]).cost
        excess = np.mean([terms(of_size, number, sample).cost - least for sample in samples]) / unit
        assert 0.4 < excess < 1.2


def test_a_slice_alone_gives_the_image_that_it_gives_among_others(predicted, expected):
    # Both masks follow from the path; a batch of one is summed in another order.
    alone = predicted(lambda d: write(d / "a.h5", KSPACE[:1]))
    np.testing.assert_allclose(alone, expected[:1], rtol=0, atol=1e-5 * expected.max())


def test_names_with_spaces_unicode_and_braces_are_kept(tmp_path, map_config, checkpoint):
    data = tmp_path / "Daten für 脑 {0} %s"
    write(data / "Kopf 1 'é' µ.h5")
    output = tiny_direct.direct_predict(tmp_path / "Aus gabe ñ", map_config, data, checkpoint)
    assert {path.name for path in output.glob("*.h5")} == {"Kopf 1 'é' µ.h5", "Kopf 1 'é' µ.posterior.h5"}


def test_a_mistake_in_a_process_that_loads_data_is_one_line_too(exit_with_one_line):
    from torch._utils import ExceptionWrapper

    from direct_deepen.engines.commands import exit_on_bad_input

    with exit_with_one_line("data/a.h5: slice 0 cannot be read: TypeError: no number"), exit_on_bad_input():
        try:
            raise DeepenError("data/a.h5: slice 0 cannot be read: TypeError: no number")
        except DeepenError:
            wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
        wrapped.reraise()


def test_training_names_a_slice_that_cannot_be_read_before_anything_is_trained(
    tmp_path, map_config, exit_with_one_line
):
    data = directory(tmp_path)
    write(data / "a.h5", KSPACE.real)
    with exit_with_one_line(*NO_PAIRS):
        tiny_direct.direct_train(tmp_path, map_config, data)


def test_training_names_a_metric_that_validation_would_not_find(tmp_path, map_config, volumes, exit_with_one_line):
    config = tiny_direct.changed(map_config, {"validation.metrics": ["sharpness"]})
    with exit_with_one_line("metrics", "sharpness"):
        tiny_direct.direct_train(tmp_path, config, volumes)
    assert not list(tmp_path.rglob("metrics.json"))


def test_coil_maps_of_another_shape_are_named(batch, one_line_error):
    maps = torch.zeros(3, 2, 32, 32, dtype=torch.complex64)
    with one_line_error("sensitivity_map has shape (3, 2, 32, 32)", "masked_kspace (3, 3, 32, 32)", ".h5 slice"):
        problem_from_batch(batch, maps)


# ---- What DIRECT tells itself


WITHOUT_SLICES = {
    "empty": lambda d: None,
    "text": lambda d: (d / "a.h5").write_text("text"),
    "no slices": lambda d: write(d / "a.h5", KSPACE[:0]),
}


@pytest.mark.parametrize("files", WITHOUT_SLICES)
def test_a_folder_without_a_slice_is_told_by_direct(tmp_path, map_config, checkpoint, caplog, files):
    data = directory(tmp_path)
    WITHOUT_SLICES[files](data)
    with caplog.at_level("INFO"):
        with pytest.raises(SystemExit):
            tiny_direct.direct_predict(tmp_path / "out", map_config, data, checkpoint)
        with pytest.raises(SystemExit):
            tiny_direct.direct_train(tmp_path, map_config, data)
    told = [record.getMessage() for record in caplog.records]
    assert "Inference dataset is empty. Terminating inference..." in told
    unread = any("training.datasets[0]: 1 of 1 files not read" in line for line in told)
    assert unread or "No training data available: Terminating training..." in told
    assert not list(tmp_path.rglob("model_*.pt")) + list(tmp_path.glob("out/*.h5"))


@pytest.mark.parametrize("text", ["model: [", "a: \x00"])
def test_a_configuration_that_is_no_yaml_is_told_by_the_parser(tmp_path, volumes, checkpoint, monkeypatch, text):
    monkeypatch.setattr(tiny_direct, "write_configuration", lambda path, _: path.write_text(text) and path)
    with pytest.raises(YAMLError):
        tiny_direct.direct_train(tmp_path, {}, volumes)
    with pytest.raises(YAMLError):
        tiny_direct.direct_predict(tmp_path / "out", {}, volumes, checkpoint)


# ---- Files that somebody else wrote


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def payload(tmp_path):
    """A checkpoint that would make a folder if it were unpickled, and that folder."""
    mark, path = tmp_path / "executed", tmp_path / "model_8.pt"
    torch.save({"model": {"weight": Payload(mark)}, "key": "k", "images": Payload(mark)}, path)
    yield SimpleNamespace(path=path, mark=mark)
    assert not mark.exists()


def test_the_payload_would_be_executed_by_a_loader_that_trusts_it(payload):
    with pytest.raises(FileExistsError, match="executed"):
        # Twice in the file: the second finds the folder there.
        torch.load(payload.path, weights_only=False)
    payload.mark.rmdir()


def checkpoint_of_run(run):
    """The path of the checkpoint that training will go on from."""
    run.mkdir()
    (run / "last_model.txt").write_text("8")
    return run / "model_8.pt"


def test_direct_predict_executes_nothing(tmp_path, map_config, volumes, payload, exit_with_one_line):
    with exit_with_one_line(str(payload.path), "no checkpoint of DIRECT (UnpicklingError)"):
        tiny_direct.direct_predict(tmp_path / "out", map_config, volumes, payload.path)


def test_direct_train_executes_nothing(tmp_path, map_config, volumes, payload, exit_with_one_line):
    path = checkpoint_of_run(tmp_path / "run")
    path.write_bytes(payload.path.read_bytes())
    with exit_with_one_line(str(path), "no checkpoint of DIRECT"):
        tiny_direct.direct_train(tmp_path, map_config, volumes, resume=True)
    with exit_with_one_line(str(payload.path), "no checkpoint of DIRECT"):
        tiny_direct.direct_train(tmp_path / "other", map_config, volumes, initialization=payload.path)


@pytest.fixture
def resumed(tmp_path, trained, volumes):
    """``resumed(content)``: go on with a training beside whose checkpoint lies a state of this content."""

    def resume(content):
        run = tmp_path / "resumed" / "run"
        shutil.copytree(trained, run, dirs_exist_ok=True)
        path = run / "training_state_8_0.pt"
        assert path.is_file()
        path.write_bytes(content)
        config = tiny_direct.configuration(iterations=11, warm_start=6)
        tiny_direct.direct_train(run.parent, config, volumes, resume=True)

    return resume


def test_going_on_with_a_training_executes_nothing(payload, resumed, exit_with_one_line):
    with exit_with_one_line("training_state_8_0.pt", "not a state of training (UnpicklingError)", "delete it"):
        resumed(payload.path.read_bytes())


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"seed": None}, torch.zeros(3)], ids=["list", "empty", "no seed", "tensor"]
)
def test_a_state_of_training_of_another_kind_is_named(resumed, exit_with_one_line, content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with exit_with_one_line("training_state_8_0.pt", "not a state of training", "delete it"):
        resumed(buffer.getvalue())


@pytest.mark.parametrize(("name", "state"), [("optimizer", {}), ("optimizer", [1, 2]), ("lr_scheduler", [1, 2])])
def test_an_optimizer_of_another_kind_is_named(tmp_path, trained, volumes, exit_with_one_line, name, state):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    content = torch.load(run / "model_8.pt", weights_only=True)
    torch.save(content | {name: state}, run / "model_8.pt")
    config = tiny_direct.configuration(iterations=11, warm_start=6)
    with exit_with_one_line(f"model_8.pt: {name} of another training"):
        tiny_direct.direct_train(tmp_path, config, volumes, resume=True)


def test_the_functions_for_python_execute_nothing(tmp_path, map_config, payload, monkeypatch, one_line_error):
    path = tiny_direct.write_configuration(tmp_path / "a.yaml", map_config)
    with one_line_error(str(payload.path), "no checkpoint of DIRECT"):
        load_trained(payload.path, path)
    dps = tiny_direct.write_configuration(tmp_path / "dps.yaml", tiny_direct.configuration("phantom_dps"))
    with one_line_error(str(payload.path), "no checkpoint of DIRECT"):
        load_denoiser(payload.path, dps)
    with one_line_error(str(payload.path), "no checkpoint of DIRECT"):
        weights_of(payload.path)
    # What somebody put in the place of the weights of the package, and of samples kept on disk.
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "energy.pt").write_bytes(payload.path.read_bytes())
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with one_line_error("energy.pt", "damaged weights"):
        load_pretrained()
    with pytest.raises(ZeroDivisionError):
        kept_posterior(payload.path, "k", lambda: 1 // 0)


OTHER_CHECKPOINTS = {
    "no weights": ({"model": {}}, "is missing"),
    "old names": ({"model": {"old.weight": torch.zeros(3)}}, "is missing"),
    "nothing": ({"model": None}, "no checkpoint of DIRECT"),
    "another package's": ({"state_dict": {}}, "no checkpoint of DIRECT"),
    "a list": ([1, 2], "no checkpoint of DIRECT"),
    "a tensor": (torch.zeros(3), "no checkpoint of DIRECT"),
}


@pytest.mark.parametrize("kind", OTHER_CHECKPOINTS)
def test_checkpoints_of_another_kind_are_named(tmp_path, map_config, one_line_error, kind):
    content, words = OTHER_CHECKPOINTS[kind]
    torch.save(content, tmp_path / "model.pt")
    configuration = tiny_direct.write_configuration(tmp_path / "a.yaml", map_config)
    with one_line_error(str(tmp_path / "model.pt"), words):
        load_trained(tmp_path / "model.pt", configuration)


@pytest.mark.parametrize("kind", ["no weights", "a list"])
def test_checkpoints_of_another_kind_are_named_by_direct_s_commands(
    tmp_path, map_config, volumes, exit_with_one_line, kind
):
    content, words = OTHER_CHECKPOINTS[kind]
    path = checkpoint_of_run(tmp_path / "run")
    torch.save(content, path)
    with exit_with_one_line(str(path), words):
        tiny_direct.direct_predict(tmp_path / "out", map_config, volumes, path)
    with exit_with_one_line(str(path), words):
        tiny_direct.direct_train(tmp_path, map_config, volumes, resume=True)
    assert not list(tmp_path.glob("out/*.h5")) + list(tmp_path.glob("run/metrics.json"))


def test_a_checkpoint_that_is_a_folder_or_a_bare_pickle_is_named(tmp_path, map_config, volumes, exit_with_one_line):
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"model": {}}))
    for path in (tmp_path, tmp_path / "pickle.pt"):
        with exit_with_one_line(str(path), "checkpoint"):
            tiny_direct.direct_predict(tmp_path / "out", map_config, volumes, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", "a.yaml"),
        ("- a list", "a.yaml"),
        ("", "a.yaml"),
        ("a: \x00", "a.yaml"),
        ("model: {model_name: deepen.priors.QuadraticEnergy, no_such_key: 1}", "no_such_key"),
        ("model: {model_name: deepen.priors.QuadraticEnergy, noise_std: loud}", "loud"),
        ("model: {model_name: deepen.priors.QuadraticEnergy, inference: 3}", "model"),
        ("model: {model_name: deepen.priors.QuadraticEnergy, noise_std: -1}", "model.noise_std is -1"),
        ("model: {model_name: varnet.VarNet}", "varnet.VarNet"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path, one_line_error, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with one_line_error(words):
        load_system(path)


# ---- The commands of ``direct-deepen``


def latin1(path):
    path.write_bytes("größe: 1\n".encode("latin-1"))


COMMANDS = [
    ("simulate missing out --seed 1", "missing: no folder"),
    ("simulate empty out --seed 1", "empty: holds no images"),
    ("reconstruct none.h5 --out out", "none.h5: no such file"),
    ("reconstruct folder --out out", "folder: a folder"),
    ("reconstruct text.h5 --out out", "text.h5: unknown format"),
    ("reconstruct real/a.h5 --out out", "real/a.h5: kspace has type"),
    ("reconstruct data/a.h5 --axes row,column --out out", "data/a.h5: kspace: axes are row,column"),
    ("posterior none.posterior.h5", "none.posterior.h5: no such file"),
    ("posterior text.h5", "text.h5: no output of `direct predict`"),
    ("posterior volume.h5", "volume.h5: holds none of map, mean, image"),
    ("posterior folder", "folder: no such file"),
    ("region none.posterior.h5 --rectangle 0 0 2 2", "none.posterior.h5: no such file"),
    ("region text.h5 --rectangle 0 0 2 2", "text.h5: no output of `direct predict`"),
    ("region volume.h5 --mask text.h5", "volume.h5: holds no samples"),
    ("region folder --rectangle 0 0 2 2", "folder: no such file"),
    ("report none --out out.html", "none: no such folder"),
    ("report folder --out out.html", "folder"),
    ("report damaged --out out.html", "damaged"),
    ("benchmark out --study none.yaml", "none.yaml: no such file"),
    ("benchmark out --study text.h5", "text.h5"),
    ("benchmark out --study latin1.yaml", "latin1.yaml"),
    ("benchmark out --study list.yaml", "list.yaml: holds no keys"),
    ("landscape pretrained --cfg none.yaml --data-root data", "none.yaml: no such file"),
    ("landscape none.pt --cfg good.yaml --data-root data", "none.pt: no such checkpoint"),
    ("landscape pretrained --cfg latin1.yaml --data-root data", "latin1.yaml"),
    ("landscape pretrained --cfg good.yaml --data-root none", "none: no such folder"),
    ("landscape pretrained --cfg good.yaml --data-root folder", "folder: holds no .h5 file"),
    ("landscape pretrained --cfg good.yaml --data-root real", "kspace has type"),
    ("calibrate out --cfg none.yaml --data-root data --validation-root data", "none.yaml: no such file"),
    ("calibrate out --cfg latin1.yaml --data-root data --validation-root data", "latin1.yaml"),
    ("calibrate out --cfg mean.yaml --data-root none --validation-root data", "none: no such folder"),
    ("calibrate out --cfg mean.yaml --checkpoint folder --data-root data --validation-root data", "folder: no such"),
    ("landscape pretrained --cfg good.yaml --data-root empty", "empty/a.h5: kspace has shape (0,"),
    ("configure none.yaml out/a.yaml", "none.yaml"),
    ("configure good.yaml out/a.yaml model.noise_std", "model.noise_std"),
    ("phantom text.h5 --volumes 1 --slices 1 --size 32 --seed 1", "text.h5"),
    ("phantom out --volumes 0 --slices 1 --seed 1", "num_volumes is 0"),
]
"""What is typed in the folder below, and what the one line says."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, map_config, mean_config):
    path = tmp_path_factory.mktemp("commands")
    for name in ("folder", "damaged", "empty", "data", "real"):
        (path / name).mkdir()
    write(path / "data" / "a.h5")
    write(path / "real" / "a.h5", KSPACE.real)
    write(path / "empty" / "a.h5", KSPACE[:0])
    write(path / "volume.h5")
    (path / "text.h5").write_text("no HDF5: [")
    (path / "list.yaml").write_text("- a\n- b\n")
    latin1(path / "latin1.yaml")
    (path / "damaged" / "metrics.json").write_text('{"iteration": 1, "loss"}\n')
    tiny_direct.write_configuration(path / "good.yaml", map_config)
    tiny_direct.write_configuration(path / "mean.yaml", mean_config)
    return path


UNSHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not write to standard error unless it is asked to."""


@pytest.mark.parametrize(("command", "words"), COMMANDS)
def test_a_command_ends_with_one_line(folder, capsys, recwarn, monkeypatch, command, words):
    # As in a process of its own: without pytest's handlers, warnings of any logger go to standard error.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with chdir(folder):
        assert main(command.split()) == 2
    # All that is said: neither a traceback nor a warning, nor a bar, as standard error is no terminal here.
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("direct-deepen: error: ")
    assert words in line
    assert [str(warning.message) for warning in recwarn if not issubclass(warning.category, UNSHOWN)] == []
    assert not (folder / "out").exists()
    assert not (folder / "out.html").exists()


def test_every_command_is_among_them():
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert {command.split()[0] for command, _ in COMMANDS} == set(commands.choices) - {"doctor"}
