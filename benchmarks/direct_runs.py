"""DIRECT's training update and prediction at the sizes of a measurement, in this process."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from direct.environment import setup_training_environment
from direct.predict import setup_inference_save_to_h5
from direct.train import build_training_datasets_from_environment
from direct.utils import set_all_seeds
from direct.utils.events import EventStorage
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from benchmarks.setting import Setting
from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.errors import require
from direct_deepen.inference import mm_map
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.noise import complex_normal
from direct_deepen.physics.sense import sense

_PREDICTED_SLICES = 3
_ITERATIONS, _NO_TOLERANCE = 15, 1e-30
"""Of MAP in the prediction that is timed and in the solver: as many steps on both sides."""


def _write_volume(folder: Path, setting: Setting, slices: int) -> None:
    """Write a volume of random objects in a fastMRI file."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, setting.size)
    envelope = torch.exp(-4 * (axis[:, None] ** 2 + axis[None] ** 2))
    coils = complex_normal((setting.coils, 1, 1), generator=generator)
    images = envelope * complex_normal((slices, 1, 1, 1), generator=generator) * (1 + 0.1 * coils)
    noise = 0.01 * complex_normal((slices, setting.coils, setting.size, setting.size), generator=generator)
    write_fastmri_volume(folder / "volume.h5", fft2(images + noise).numpy())


def _write_configuration(source: Path, target: Path, setting: Setting, changes: Mapping[str, Any]) -> Path:
    """Write a configuration of DIRECT for the sizes of a setting, with other values under dotted keys."""
    require(source.is_file(), f"{source}: no such configuration file; run this where `configs` is, or name one")
    config = OmegaConf.load(source)
    sizes = {
        "validation.datasets": [],
        "training.batch_size": setting.batch,
        "logging.log_interval": 1000000,
    }
    for key, value in (sizes | dict(changes)).items():
        OmegaConf.update(config, key, value, force_add=True)
    for dataset in (config.training.datasets[0], config.inference.dataset):
        OmegaConf.update(dataset, "transforms.augmentation.pad", [setting.size, setting.size], force_add=True)
        OmegaConf.update(dataset, "transforms.compress_coils", None, force_add=True)
    OmegaConf.save(config, target)
    return target


def _energy_changes(setting: Setting, num_steps: int) -> dict[str, Any]:
    """Return what makes a configuration of DEEPEN train by chains of ``num_steps`` steps, from the first update on."""
    return {
        "model.hidden_channels": setting.channels,
        "model.activation": setting.activation,
        "model.objective.warm_start_iterations": 0,
        "model.objective.chains": {"start": "sense", "num_steps": num_steps, "map_steps": 0, "step_size": 0.1},
        # Untrained weights are far from equilibrium.
        "model.objective.guard.max_gap": 1e12,
        "model.objective.guard.max_curvature": 1e12,
    }


def training_update(
    configuration: Path, folder: Path, setting: Setting, num_steps: int | None = None
) -> Callable[[], None]:
    """Return a function that does one update of ``direct train``: everything between two batches.

    Parameters
    ----------
    configuration
        A configuration of DIRECT.
    folder
        Where a volume is to lie; the batch is its first slice, repeated.
    setting
        Sizes.
    num_steps
        Steps of the chains; None for a configuration that is not of DEEPEN.

    Raises
    ------
    DeepenError
        If there is no such configuration.
    """
    set_all_seeds(0)
    data = Path(tempfile.mkdtemp(dir=folder))
    _write_volume(data, setting, slices=1)
    changes = {} if num_steps is None else _energy_changes(setting, num_steps)
    used = _write_configuration(configuration, data / "used.yaml", setting, changes)
    environment = _environment(used, data, setting)
    engine = environment.engine
    (dataset,) = build_training_datasets_from_environment(
        environment, environment.cfg.training.datasets, data_root=data, lists_root=data
    )
    samples = default_collate([dataset[0]] * setting.batch)
    optimizer = torch.optim.Adam(engine.model.parameters(), lr=environment.cfg.training.lr)
    # What DIRECT's loops set when they begin.
    engine.ndim = 2
    engine._Engine__optimizer = optimizer
    engine.model.train()
    losses = engine.build_loss()
    storage = EventStorage(0)

    def update() -> None:
        with storage:
            engine._do_iteration(dict(samples), losses)
            storage.step()
        torch.nn.utils.clip_grad_norm_(engine.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def prediction(configuration: Path, folder: Path, setting: Setting) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return two functions that reconstruct a volume: ``direct predict`` once it is imported, and the solver.

    The slices as DIRECT's transforms make them lie ready in memory for the solver. Arguments are those of
    :func:`training_update`; the configuration is one of DEEPEN.
    """
    set_all_seeds(0)
    data = Path(tempfile.mkdtemp(dir=folder))
    _write_volume(data, setting, _PREDICTED_SLICES)
    few_steps = {"model.inference.max_iterations": _ITERATIONS, "model.inference.tolerance": _NO_TOLERANCE}
    changes = _energy_changes(setting, num_steps=1) | few_steps
    used = _write_configuration(configuration, data / "used.yaml", setting, changes)
    energy = _environment(used, data, setting).engine.model
    checkpoint = data / "model_0.pt"
    torch.save({"model": energy.state_dict()}, checkpoint)
    problems = [case.problem for case in cases(inference_dataset(used, data), device=setting.device)]

    def predict() -> None:
        output = Path(tempfile.mkdtemp(dir=folder))
        setup_inference_save_to_h5(
            run_name="", data_root=data, base_directory=output, output_directory=output, filenames_filter=None,
            checkpoint=checkpoint, device=setting.device, num_workers=0, machine_rank=0, cfg_file=used,
        )  # fmt: skip
        logging.getLogger().handlers.clear()

    @torch.no_grad()
    def solve() -> None:
        for problem in problems:
            A, b = problem.A, problem.masked_kspace
            start = sense(A, b, regularization=0.01)
            mm_map(A, b, energy, init=start, tolerance=_NO_TOLERANCE, max_iterations=_ITERATIONS)

    return predict, solve


def _environment(configuration: Path, folder: Path, setting: Setting) -> Any:
    environment = setup_training_environment("speed", folder / "runs", configuration, setting.device, 0, False)
    logging.getLogger().handlers.clear()
    return environment
