"""The kinds of methods of a study, each of which becomes one function of a slice and of the value it is tuned to."""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from direct.data.transforms import center_crop
from direct.environment import load_dataset_config, setup_inference_environment
from direct.utils import dict_to_device, set_all_seeds
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from direct_deepen.data.cases import Case, inference_dataset, intensity_scale_of
from direct_deepen.engines.checkpoints import require_trained_with, require_weights_of, weights_of
from direct_deepen.engines.engine import DeepenEngine
from direct_deepen.engines.settings import INSTEAD
from direct_deepen.errors import require
from direct_deepen.evaluation.classical import CLASSICAL, REGULARIZATIONS, ZERO_FILLED
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.study import Run, Study
from direct_deepen.posterior.posterior_file import ESTIMATES, open_output, posterior_path

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """One image of one slice, real or complex (height, width) in scaled intensities.

    ``seconds`` are those of the reconstruction, transforms excluded; not a number where nobody knows. ``std`` is that
    of the magnitude, over the samples of which ``image`` is the mean; ``samples`` are ``num_samples``, ``num_chains``,
    and ``sample_seconds`` and ``sample_evaluations`` of one chain or independent sample.
    """

    image: torch.Tensor
    seconds: float
    gradient_evaluations: float = 0.0
    std: torch.Tensor | None = None
    samples: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Reconstructor:
    """A method, ready for the slices of one problem.

    ``reconstruct`` takes a value and a slice, and returns estimates by the ending of their row's name; the value is the
    best of ``candidates`` on validation data, if there are any.
    """

    reconstruct: Callable[[Any, Case], dict[str, Estimate]]
    candidates: Sequence[Any] = ()
    parameters: int = 0


def reconstructor(study: Study, run: Run, device: str) -> Reconstructor:
    """Return the method of a run, with its weights and settings."""
    method = run.method
    if method.classical is not None:
        return classical(method.classical, device)
    checkpoint = run.path(method.checkpoint)
    if method.configuration is None:
        return predicted(run.path(method.predictions), checkpoint)
    engine = _engine(method.configuration, checkpoint, study.seed, device)
    # An average of weights is no further weight.
    parameters = sum(tensor.numel() for tensor in engine.model.parameters() if tensor.requires_grad)
    tune = method.tune
    if isinstance(engine, DeepenEngine):
        mine, problem = engine.settings.intensity_scale, study.problems[run.problem]
        require(
            mine == intensity_scale_of(problem),
            f"{method.configuration}: model.intensity_scale is {mine!r}; allowed with {problem}: the same as there",
        )
        key, values = (None, []) if tune is None else (tune.key, tune.values)
        for value in values:
            # All of them now: validation data take time to read.
            engine.configure(str(key), value)
        return Reconstructor(partial(_by_this_package, engine, key, device), values, parameters)
    require(tune is None, f"tune: {type(engine).__name__} has no settings to tune; allowed: no tune")
    by_direct = _by_direct(engine, method.configuration, study.problems[run.problem], study.test, device)
    return Reconstructor(by_direct, parameters=parameters)


# ---- What is compared, and tuning


def in_view[Image: torch.Tensor | None](case: Case, image: Image) -> Image:
    """Return the part of an image of a slice that is compared: what ``inference.crop: header`` leaves, or all."""
    if image is None or not case.cropped or case.reconstruction_size is None:
        return image
    height, width = (min(sizes) for sizes in zip(case.reconstruction_size, image.shape[-2:], strict=True))
    return center_crop(image, (height, width))


def best_value(method: Reconstructor, cases: Sequence[Case]) -> Any:
    """Return the candidate whose images have the highest mean PSNR over the cases."""
    require(len(cases) > 0, "there are no validation data to tune on; allowed: one slice or more")

    def psnr(value: Any, case: Case) -> float:
        (estimate,) = method.reconstruct(value, case).values()
        return quality(in_view(case, estimate.image), in_view(case, case.reference[0])).psnr

    scores = [float(np.mean([psnr(value, case) for case in cases])) for value in method.candidates]
    best = method.candidates[int(np.argmax(scores))]
    _logger.info("%s is the best of %i values on %i slices", best, len(scores), len(cases))
    return best


def _timed[Result](device: str, reconstruct: Callable[[], Result]) -> tuple[Result, float]:
    """Return a result and the seconds until the device had done what it was given."""

    def wait() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    begin = wait()
    result = reconstruct()
    return result, wait() - begin


# ---- The kinds


def classical(name: str, device: str = "cpu") -> Reconstructor:
    """Return a method of :data:`CLASSICAL`, tuned by its λ, or zero-filled images."""

    def reconstruct(value: float, case: Case) -> dict[str, Estimate]:
        A, b = case.problem.A, case.problem.masked_kspace
        solve = partial(A.adjoint, b) if name == ZERO_FILLED else partial(CLASSICAL[name], A, b, regularization=value)
        image, seconds = _timed(device, solve)
        return {"": Estimate(image[0], seconds)}

    return Reconstructor(reconstruct, () if name == ZERO_FILLED else REGULARIZATIONS)


@torch.no_grad()
def _by_this_package(engine: DeepenEngine, key: str | None, device: str, value: Any, case: Case) -> dict[str, Estimate]:
    if key is not None:
        engine.configure(key, value)
    result, seconds = _timed(device, lambda: engine.reconstruction(case.problem))
    arrays = {name: array[0] for name, array in result.arrays.items()}
    evaluations = sum(float(number) for name, number in arrays.items() if name.endswith("evaluations"))
    chains, keep = (getattr(engine.inference, name, 1) for name in ("num_samples", "keep"))
    of_samples = _of_samples(arrays, case, chains=chains, keep=keep)
    return {"": Estimate(result.image[0] / case.problem.scale, seconds, evaluations, *of_samples)}


def _of_samples(arrays: Mapping[str, Any], case: Case, *, chains: int, keep: int) -> tuple[Any, ...]:
    """Return ``std`` and ``samples`` of an estimate from one slice of a posterior file; nothing if none differ."""
    if "std" not in arrays or not bool(arrays["std"].any()):
        return ()
    return _scaled(arrays["std"], case), {
        "num_samples": chains * keep,
        "num_chains": chains,
        "sample_seconds": float(arrays["posterior_seconds"]) / chains,
        "sample_evaluations": float(arrays["posterior_gradient_evaluations"]) / chains,
    }


def _scaled(image: Any, case: Case) -> torch.Tensor:
    return torch.as_tensor(image, device=case.reference.device).abs() / case.problem.scale


def _by_direct(engine: Any, configuration: Path, problem: Path, data_root: Path, device: str) -> Callable:
    """Return any other model of DIRECT, on batches of a problem scaled as its own configuration asks for."""
    section = OmegaConf.load(problem).inference.dataset
    # With their defaults: what the problem leaves out is not to be the method's.
    merged = OmegaConf.merge(OmegaConf.structured(load_dataset_config(section.name)), section)
    transforms = OmegaConf.to_container(merged.transforms)
    assert isinstance(transforms, dict)
    transforms.pop("normalization", None)
    dataset = inference_dataset(configuration, data_root, transforms=transforms)
    # DIRECT numbers the slices of a volume as they come.
    indices = {Path(path).name: list(numbers) for path, numbers in dataset.volume_indices.items()}

    @torch.no_grad()
    def reconstruct(value: Any, case: Case) -> dict[str, Estimate]:
        batch = dict_to_device(default_collate([dataset[indices[case.volume][case.slice_number]]]), device)
        image, seconds = _timed(device, lambda: engine._do_iteration(batch).output_image)
        image = torch.view_as_complex(image.contiguous()) if image.shape[-1] == 2 else image
        return {"": Estimate(image[0] * (batch["scaling_factor"] / case.problem.scale), seconds)}

    return reconstruct


def _engine(configuration: Path, checkpoint: Path, seed: int, device: str) -> Any:
    """Build DIRECT's engine of a configuration, with the weights of a checkpoint."""
    require(configuration.is_file(), f"{configuration}: no such file")
    set_all_seeds(seed)
    with tempfile.TemporaryDirectory() as scratch:
        environment = setup_inference_environment("run", Path(scratch), device, 0, False, configuration)
        # Its log file lies in the folder that goes.
        for handler in logging.getLogger().handlers[:]:
            logging.getLogger().removeHandler(handler)
            handler.close()
    engine = environment.engine
    require_weights_of(engine.model, checkpoint)
    if isinstance(engine, DeepenEngine):
        require_trained_with(checkpoint, engine.settings.meaning(), INSTEAD)
    engine.model.load_state_dict(weights_of(checkpoint))
    engine.model.eval()
    engine.ndim = 2
    return engine


def predicted(folder: Path, checkpoint: Path) -> Reconstructor:
    """Return what ``direct predict`` wrote: two rows where posterior files have MAP and mean, else one.

    Seconds and evaluations are those of the posterior file. Models that have none only tell DIRECT's log how long they
    took, reading included: they are not a number.
    """
    require(folder.is_dir(), f"{folder}: no such folder; run `direct predict` first")

    def reconstruct(value: Any, case: Case) -> dict[str, Estimate]:
        magnitude = _magnitude(folder / case.volume, case)
        path = posterior_path(folder, Path(case.volume))
        if not path.is_file():
            return {"": Estimate(_scaled(magnitude, case), float("nan"))}
        with open_output(path) as file:
            arrays = {name: dataset[case.slice_number] for name, dataset in file.items() if name != "samples"}
            # DIRECT's file may be cropped; these are not.
            images = {name: arrays[name] for name in (*ESTIMATES, "std") if name in arrays}
            arrays |= {name: center_crop(image, magnitude.shape) for name, image in images.items()}
            chains, keep = (int(file.attrs.get(name, 1)) for name in ("num_samples", "keep"))
        kinds = {"map": ("_map", "map_"), "mean": ("_mmse", "posterior_"), "image": ("", "")}
        found = {kind: names for kind, names in kinds.items() if kind in arrays}
        estimates = {}
        for kind, (ending, part) in found.items():
            # Methods without an energy evaluate no gradient.
            evaluations = float(arrays.get(f"{part}gradient_evaluations", 0.0))
            of_samples = _of_samples(arrays, case, chains=chains, keep=keep) if kind == "mean" else ()
            estimates[ending if len(found) > 1 else ""] = Estimate(
                _scaled(arrays[kind], case), float(arrays[f"{part}seconds"]), evaluations, *of_samples
            )
        return estimates

    return Reconstructor(reconstruct, parameters=sum(tensor.numel() for tensor in weights_of(checkpoint).values()))


def _magnitude(path: Path, case: Case) -> np.ndarray:
    """Return the image that DIRECT wrote of a slice, once it is known to be of these data."""
    number, whole = case.slice_number, tuple(case.reference.shape[1:])
    allowed = {whole, case.reconstruction_size or whole}
    with open_output(path) as file:
        require("reconstruction" in file, f"{path}: holds no `reconstruction`")
        images, masks = file["reconstruction"], file.get("sampling_mask")
        sizes = " or ".join(f"({number + 1} or more, {height}, {width})" for height, width in sorted(allowed))
        fits = images.ndim == 3 and images.shape[1:] in allowed and number < images.shape[0]
        require(fits, f"{path}: reconstruction has shape {images.shape}; allowed with these data: {sizes}")
        mask = case.problem.A.sampling_mask[0, 0].cpu().numpy() != 0
        same = masks is None or np.array_equal(np.squeeze(masks[number]) != 0, mask)
        require(same, f"{path}: another sampling mask; give `direct predict` the --data-root and masking of the study")
        return np.array(images[number])
