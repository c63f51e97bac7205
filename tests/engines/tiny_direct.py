"""Tiny data and configurations, and DIRECT's own commands run on them inside the test process.

DIRECT seeds the mask of a volume by its path. So that masks are the same in every run of the tests, its commands get
the folder of the data by its name alone, and run where that lies.
"""

import copy
import gc
import logging
import os
import pickle
import random
import signal
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from direct.environment import setup_training_environment
from direct.predict import setup_inference_save_to_h5
from direct.train import build_training_datasets_from_environment, setup_train
from direct.utils import set_all_seeds
from direct.utils.events import JSONWriter
from omegaconf import OmegaConf

from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.physics.fourier import fft2

REPOSITORY = Path(__file__).resolve().parents[2]
CORES = [0]
"""The cores that the engine sees: the images are tiny, and more threads would only wait for one another."""

SIZE = 32
COILS = 3
SLICES = 2


def committed(name: str) -> dict[str, Any]:
    """A configuration of ``configs/``."""
    return copy.deepcopy(_parsed(name))


@cache
def _parsed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


# ---- Data


def draw_kspace(seed: int, *, slices: int = SLICES, coils: int = COILS, size: int = SIZE) -> np.ndarray:
    """Fully sampled k-space of smooth complex objects seen by smooth coils, with noise: complex (slice, coil, y, x)."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    body = 1 / (1 + np.exp(20 * (np.hypot(y / 0.8, x / 0.7) - 1)))
    objects = []
    for _ in range(slices):
        image = body.astype(complex)
        for _ in range(4):
            centre, width = generator.uniform(-0.5, 0.5, 2), generator.uniform(0.1, 0.3)
            bump = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)
            image += generator.uniform(-0.6, 0.9) * body * bump
        phase = generator.uniform(-1, 1, 3)
        objects.append(image * np.exp(1j * (phase[0] + phase[1] * y + phase[2] * x * y)))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack(
        [
            np.exp(-((y - np.sin(angle)) ** 2 + (x - np.cos(angle)) ** 2) / 2 + 1j * (angle + 0.5 * x * np.sin(angle)))
            for angle in angles
        ]
    )
    kspace = fft2(torch.from_numpy(np.stack(objects)[:, None] * maps)).numpy()
    noise = generator.standard_normal((2, *kspace.shape))
    return (kspace + 0.01 * (noise[0] + 1j * noise[1])).astype(np.complex64)


def write_volumes(folder: Path, names: list[str], *, seed: int = 0, **sizes: int) -> Path:
    """Write one volume for every name and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for offset, name in enumerate(names):
        write_fastmri_volume(folder / f"{name}.h5", draw_kspace(seed + offset, **sizes))
    return folder


def undersample(source: Path, target: Path, mask: np.ndarray) -> Path:
    """Write a volume as fastMRI's test set has them: a mask over columns, k-space zero outside, no reconstruction."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as whole, h5py.File(target, "w") as part:
        part["kspace"] = whole["kspace"][()] * (mask != 0)
        part["mask"] = mask
        part["ismrmrd_header"] = whole["ismrmrd_header"][()]
        for name in ("acquisition", "patient_id"):
            part.attrs[name] = whole.attrs[name]
    return target


# ---- Configurations


SMALL = {
    "contrastive": {"warm_start_iterations": 3, "chains": {"start": "sense", "num_steps": 3, "map_steps": 0}},
    "contrastive_over_levels": {"warm_start_iterations": 3, "chains": {"num_steps": 3, "map_steps": 0}},
    "map": {"max_iterations": 6},
    "proximal_iteration": {"max_iterations": 9},
    "unrolled_gradient": {},
    "equilibrium": {"data_weight_factor": 0.5},
    "langevin": {"num_samples": 3, "num_steps": 12, "keep": 10, "max_iterations": 6},
    "fast": {"num_samples": 4, "num_steps": 12, "keep": 10, "max_iterations": 6},
    "diffusion_sampling": {"num_samples": 3, "num_steps": 12},
    "annealed_langevin": {"num_samples": 3, "num_levels": 3, "inner_steps": 2},
}
"""What makes objectives and inferences small, by their names."""


def configuration(
    name: str = "demo_deepen", *, batch_size: int = 2, iterations: int = 8, warm_start: int = 3
) -> dict[str, Any]:
    """A small configuration of ``configs/`` cut down to seconds, with every kind of logging."""
    result = changed(
        committed(name),
        {
            "validation.datasets": [],
            "inference.batch_size": 2,
            "logging.log_interval": 1,
            "training.batch_size": batch_size,
            "training.num_iterations": iterations,
            "training.lr_warmup_iter": 2,
            "training.validation_steps": 100,
            "training.checkpointer.checkpoint_steps": 100,
        },
    )
    model = result["model"]
    if "channels" in model:
        model |= {"channels": [4, 6], "average_decay": 0.8}
    else:
        model |= {"hidden_channels": 4, "num_layers": 3}
    for part in (model.get("objective", {}), model.get("inference", {})):
        part |= copy.deepcopy(SMALL.get(part.get("name"), {}))
    if "warm_start_iterations" in model.get("objective", {}):
        model["objective"]["warm_start_iterations"] = warm_start
    for section in (result["training"]["datasets"][0], result["inference"]["dataset"]):
        section["transforms"]["augmentation"]["pad"] = [SIZE, SIZE]
        # Of 32×32 samples the 2 % of the large configurations are a disc five samples wide: too few for ESPIRiT.
        section["transforms"]["masking"]["center_fractions"] = [0.08]
    return result


def posterior(config: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The same with Langevin chains of eight steps."""
    return changed(config, {"model.inference": {"name": "langevin", **SMALL["langevin"], **settings}})


def persistent(config: dict[str, Any]) -> dict[str, Any]:
    """The same with persistent chains."""
    return changed(config, {"model.objective.chains.start": "persistent"})


def recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The same by the parts of ``recorded.py``, which tell the tests of updates and batches."""
    names = {"contrastive": "recorded:Contrastive", "map": "recorded:Map", "langevin": "recorded:Langevin"}
    parts = {kind: config["model"][kind] for kind in ("objective", "inference")}
    return changed(
        config, {f"model.{kind}.name": names.get(part["name"], part["name"]) for kind, part in parts.items()}
    )


def with_transforms(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with other values under dotted keys of the transforms, for training and inference."""
    result = copy.deepcopy(config)
    for dataset in (*result["training"]["datasets"], *result["validation"]["datasets"], result["inference"]["dataset"]):
        dataset["transforms"] = changed(dataset["transforms"], changes)
    return result


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with other values under dotted keys."""
    result = copy.deepcopy(config)
    for key, value in changes.items():
        *path, last = key.split(".")
        section = result
        for name in path:
            section = section.setdefault(name, {}) if isinstance(section, dict) else section[int(name)]
        section[last] = value
    return result


def with_espirit(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with ESPIRiT's maps, and a centre that is wide enough for them."""
    # Of a centre 16 samples wide there are as many patches as ESPIRiT's kernel has weights.
    wide = {"masking.accelerations": [2.0], "masking.center_fractions": [0.4]}
    return with_transforms(changed(config, {"model.coil_maps": "espirit"}), wide)


def write_configuration(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


# ---- DIRECT's commands: what ``direct train`` and ``direct predict`` call once they have parsed their arguments


_structured = OmegaConf.structured


@cache
def _defaults(kind: type) -> bytes:
    return pickle.dumps(_structured(kind))


def defaults(kind: Any, *arguments: Any, **keywords: Any) -> Any:
    """Return what ``OmegaConf.structured`` does, which takes half of the time that a command needs to begin."""
    if arguments or keywords or not isinstance(kind, type):
        return _structured(kind, *arguments, **keywords)
    return pickle.loads(_defaults(kind))


OmegaConf.structured = staticmethod(defaults)


def defaults_not_to_be_copied(kind: Any, *arguments: Any, **keywords: Any) -> Any:
    """The same, where parts are put in as they are: DIRECT puts in what nobody else has, and copies it every time."""
    config = defaults(kind, *arguments, **keywords)
    config._set_flag("no_deepcopy_set_nodes", True)
    return config


@contextmanager
def process_as_before() -> Iterator[None]:
    """Undo what DIRECT does to the process it runs in: logs, SIGINT, seeds. A warning about our code is an error."""
    affinity = getattr(os, "sched_getaffinity", None)
    writers: list[JSONWriter] = []
    begin = JSONWriter.__init__

    def known(writer: JSONWriter, *arguments: Any, **keywords: Any) -> None:
        begin(writer, *arguments, **keywords)
        writers.append(writer)

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    interrupt = signal.getsignal(signal.SIGINT)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    environment = {name: os.environ.get(name) for name in ("PYTHONHASHSEED", "PL_GLOBAL_SEED")}
    collect = gc.collect
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("error", module="direct_deepen")
            if affinity is not None:
                os.sched_getaffinity = lambda process: set(CORES)
            JSONWriter.__init__ = known
            # DIRECT collects garbage at every batch: a tenth of a second among all that tests have imported.
            gc.collect = lambda *_: 0
            OmegaConf.structured = staticmethod(defaults_not_to_be_copied)
            yield
    finally:
        if affinity is not None:
            os.sched_getaffinity = affinity
        JSONWriter.__init__ = begin
        gc.collect = collect
        OmegaConf.structured = staticmethod(defaults)
        # DIRECT leaves them open where a training ends with an error: their end would be a warning in another test.
        for writer in writers:
            writer.close()
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        signal.signal(signal.SIGINT, interrupt)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def direct_train(
    experiments: Path,
    config: dict[str, Any],
    data: Path | None,
    *,
    seed: int = 1,
    resume: bool = False,
    name: str = "run",
    initialization: Path | None = None,
    device: str = "cpu",
    num_workers: int = 0,
    mixed_precision: bool = False,
    initial_images: list[Path] | None = None,
) -> Path:
    """Run ``direct train`` in this process and return the folder of the run; without data DIRECT draws them."""
    experiments.mkdir(parents=True, exist_ok=True)
    path = write_configuration(experiments / f"{name}.yaml", config)
    root = None if data is None else Path(data.name)
    with process_as_before(), chdir(experiments if data is None else data.parent):
        set_all_seeds(seed)
        setup_train(
            run_name=name,
            training_root=root,
            validation_root=root,
            base_directory=experiments,
            cfg_filename=path,
            force_validation=False,
            initialization_checkpoint=initialization,
            initial_images=initial_images,
            initial_kspace=None,
            noise=None,
            device=device,
            num_workers=num_workers,
            resume=resume,
            machine_rank=0,
            mixed_precision=mixed_precision,
            debug=False,
        )
    return experiments / name


def direct_predict(
    output: Path,
    config: dict[str, Any],
    data: Path,
    checkpoint: Path,
    *,
    seed: int = 1,
    device: str = "cpu",
    num_workers: int = 0,
    experiment: Path | None = None,
) -> Path:
    """Run ``direct predict`` in this process and return its output folder."""
    output.mkdir(parents=True, exist_ok=True)
    path = write_configuration(output / "used.yaml", config)
    with process_as_before(), chdir(data.parent):
        set_all_seeds(seed)
        setup_inference_save_to_h5(
            run_name="",
            data_root=Path(data.name),
            base_directory=experiment or output,
            output_directory=output,
            filenames_filter=None,
            checkpoint=checkpoint,
            device=device,
            num_workers=num_workers,
            machine_rank=0,
            cfg_file=path,
        )
    return output


# ---- Parts of these commands


def build_environment(folder: Path, config: dict[str, Any] | Path, *, seed: int = 1) -> Any:
    """Build configuration, model and engine as ``direct train`` does, and nothing more."""
    folder.mkdir(parents=True, exist_ok=True)
    path = config if isinstance(config, Path) else write_configuration(folder / "environment.yaml", config)
    with process_as_before():
        set_all_seeds(seed)
        environment = setup_training_environment("environment", folder, path, "cpu", 0, False)
    engine = environment.engine
    # What DIRECT's loops set when they begin.
    engine.ndim = 2
    engine._Engine__optimizer = torch.optim.Adam(engine.model.parameters(), lr=environment.cfg.training.lr)
    return environment


def build_engine(folder: Path, config: dict[str, Any], *, seed: int = 1) -> Any:
    return build_environment(folder, config, seed=seed).engine


def training_samples(environment: Any, data: Path) -> list[dict[str, Any]]:
    """The slices of the training dataset, as ``direct train`` builds it, volume by volume in the order of names."""
    with process_as_before(), chdir(data.parent):
        (dataset,) = build_training_datasets_from_environment(
            environment, environment.cfg.training.datasets, data_root=Path(data.name), lists_root=data
        )
        return [dataset[index] for path in sorted(dataset.volume_indices) for index in dataset.volume_indices[path]]


def weights_of(run: Path, iteration: int) -> dict[str, torch.Tensor]:
    return torch.load(run / f"model_{iteration}.pt", weights_only=True)["model"]
