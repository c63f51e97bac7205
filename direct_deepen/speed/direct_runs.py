"""DIRECT's training update and prediction at the sizes of a measurement, in this process."""

import logging
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

from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.engines.engine import DeepenEngine as PriorEngine
from direct_deepen.engines.reconstruction import reconstruct
from direct_deepen.errors import require
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.noise import complex_normal
from direct_deepen.speed.setting import Setting

PREDICTED_SLICES = 3
MAP_ITERATIONS = 15
"""Steps of MAP in the prediction that is timed: as many on both sides."""


def write_volume(folder: Path, setting: Setting, slices: int) -> None:
    """Write a volume of random objects in a fastMRI file."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, setting.size)
    envelope = torch.exp(-4 * (axis[:, None] ** 2 + axis[None] ** 2))
    coils = complex_normal((setting.coils, 1, 1), generator=generator)
    images = envelope * complex_normal((slices, 1, 1, 1), generator=generator) * (1 + 0.1 * coils)
    noise = 0.01 * complex_normal((slices, setting.coils, setting.size, setting.size), generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    write_fastmri_volume(folder / "volume.h5", fft2(images + noise).numpy())


def write_configuration(source: Path, target: Path, setting: Setting, changes: Mapping[str, Any]) -> Path:
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
        dataset.transforms.augmentation.pad = [setting.size, setting.size]
        dataset.transforms.compress_coils = None
    target.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, target)
    return target


def energy_changes(setting: Setting, num_steps: int) -> dict[str, Any]:
    """Return what makes a configuration of DEEPEN train by chains of ``num_steps`` steps, from the first update on."""
    chains = "model.objective.chains"
    return {
        "model.hidden_channels": setting.channels,
        "model.activation": setting.activation,
        "model.objective.warm_start_iterations": 0,
        f"{chains}.noise": {"fraction": 0.0, "num_steps": num_steps, "map_steps": 0},
        f"{chains}.sense": {"fraction": 1.0, "num_steps": num_steps, "map_steps": 0},
        f"{chains}.persistent": {"fraction": 0.0, "num_steps": num_steps, "map_steps": 0},
        f"{chains}.step_size": 0.1,
        # Untrained weights are far from equilibrium.
        "model.objective.guard.max_gap": 1e12,
        "model.objective.guard.max_curvature": 1e12,
    }


def training_update(configuration: Path, data: Path, setting: Setting) -> Callable[[], None]:
    """Return a function that does one update of ``direct train``: everything between two batches.

    Parameters
    ----------
    configuration
        A configuration of DIRECT.
    data
        Folder of volumes.
    setting
        The batch is the first slice, repeated.
    """
    set_all_seeds(0)
    environment = setup_training_environment("speed", data / "runs", configuration, setting.device, 0, False)
    logging.getLogger().handlers.clear()
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


class Prediction:
    """``direct predict`` on a volume, and the bare solver on what DIRECT's transforms make of it.

    Parameters
    ----------
    configuration
        A configuration of DEEPEN.
    folder
        Where the volume and the results are to lie.
    device
        Where to reconstruct.
    """

    def __init__(self, configuration: Path, folder: Path, device: str) -> None:
        self.configuration, self.folder, self.device = configuration, folder, device
        set_all_seeds(0)
        environment = setup_training_environment("speed", folder / "runs", configuration, device, 0, False)
        logging.getLogger().handlers.clear()
        self.engine: PriorEngine = environment.engine
        self.checkpoint = folder / "model_0.pt"
        torch.save({"model": self.engine.prior.state_dict()}, self.checkpoint)
        self._runs = 0
        self._cases: list[Case] = []

    def direct(self) -> None:
        """Predict as ``direct predict`` does once it is imported, to a new folder every time."""
        self._runs += 1
        output = self.folder / f"output_{self._runs}"
        output.mkdir()
        setup_inference_save_to_h5(
            run_name="", data_root=self.folder, base_directory=output, output_directory=output, filenames_filter=None,
            checkpoint=self.checkpoint, device=self.device, num_workers=0, machine_rank=0, cfg_file=self.configuration,
        )  # fmt: skip
        logging.getLogger().handlers.clear()

    @torch.no_grad()
    def solver(self) -> None:
        """Reconstruct the same slices, which lie ready in memory."""
        if not self._cases:
            self._cases = list(cases(inference_dataset(self.configuration, self.folder), device=self.device))
        for case in self._cases:
            reconstruct(case.problem, self.engine.prior, self.engine.settings, seed=0)  # type: ignore[arg-type]
