"""Options of DIRECT that the engine cannot serve: each is refused in one line, before data are read.

Refused is what DIRECT's own engines act on and this one does not, and what fails, or is wrong, in DIRECT itself. What
DIRECT reads nowhere has no effect here either. The page docs/direct.md has all options.
"""

from collections.abc import Iterator
from inspect import signature
from typing import Any

from direct.common import subsample
from direct.data import datasets
from direct.environment import load_dataset_config
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from direct_deepen.errors import DeepenError, first_line, require

NO_MODEL = {
    "sensitivity_model": "coil maps make the reference that the prior learns from, so that no loss says which are right"
    "; model.coil_maps: espirit estimates better ones",
    "sampling_model": "masks are those of transforms.masking",
}
"""Why additional models are refused; others serve nothing."""

TRAINING: dict[str, tuple[tuple[Any, ...], str]] = {
    "loss.losses": (([],), "model.objective is the loss"),
    "loss.crop": ((None,), "model.objective compares whole images"),
    "regularizers": (([],), "model.objective is the loss"),
    "gradient_steps": ((1,), "DIRECT clears the gradient after every iteration; use a larger training.batch_size"),
    "gradient_debug": ((False,), "DIRECT fails in it; training.gradient_clipping limits the norm"),
}
PHYSICS: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_noise_matrix": ((False,), "--noise is not used; model.noise_std is the noise")
}
DATASET: dict[str, tuple[tuple[Any, ...], str]] = {
    "kspace_context": ((None, 0, False), "2D only"),
    "pass_h5s": ((None,), "model.coil_maps estimates coil maps, and nothing else is read from other files"),
    "initial_images": ((None,), "inference begins at SENSE"),
    "noise_data": ((None,), "model.noise_std is the noise"),
}
TRANSFORMS: dict[str, tuple[tuple[Any, ...], str]] = {
    "transforms_type": (("SUPERVISED",), "there is no self-supervised training"),
    "dynamic_mask": ((None, False), "2D only"),
    "masking.mode": (("STATIC",), "2D only"),
    "registration.registration": ((False,), "2D only"),
    "image_recon_type": (("SENSE_MOD", "RSS"), "validation compares magnitudes of one image"),
    "sensitivity_map_estimation.estimate_sensitivity_maps": ((True,), "there is no reconstruction without coil maps"),
    "sensitivity_map_estimation.sensitivity_maps_type": (
        ("RSS_ESTIMATE", "UNIT"), "DIRECT's ESPIRIT loses the phase of the maps; use model.coil_maps: espirit",
    ),
    "normalization.scaling_key": (
        (None, "masked_kspace", "kspace", "acs_kspace", "scaling_factor"), "the engine finds the scale of an image",
    ),
}  # fmt: skip
"""Options of a section: what is allowed, and why nothing else is."""

_WITH_SIZE = ("FastMRI", "FakeMRIBlobs", "CMRxRecon")
"""Datasets whose samples say how large the reconstruction is to be."""

_WITHOUT_FILES = ("FakeMRIBlobs", "SheppLoganProton", "SheppLoganT1", "SheppLoganT2")
"""Datasets that draw their images."""


def require_served(cfg: Any, command: str | None = None) -> None:
    """Raise :class:`DeepenError` where a configuration of DIRECT asks for what ``command``, by default any, has not."""
    for name in cfg.additional_models or ():
        why = NO_MODEL.get(str(name), "the engine trains the prior alone")
        raise DeepenError(f"additional_models.{name} is not used; allowed: no additional model ({why})")
    _require(cfg.physics, PHYSICS, "physics")
    if command != "predict" and cfg.training is not None:
        _require(cfg.training, TRAINING, "training")
    for section, key, data in _datasets(cfg, command):
        require_dataset(data, key)
        crop, known = section.crop, data.name in _WITH_SIZE
        require(
            crop is None or (crop == "header" and known),
            f"{key.partition('.')[0]}.crop is {crop!r}; allowed with {key}.name {data.name}: null"
            + (", header" if known else ""),
        )
    # Where the key is left out, DIRECT numbers them.
    validation = [(key, data) for _, key, data in _datasets(cfg, command) if key.startswith("validation")]
    names = [data.get("text_description", key) for key, data in validation]
    require(
        len(set(names)) == len(names),
        f"validation.datasets have text_description {', '.join(map(str, names))}; allowed: one for each, as DIRECT's "
        "files and curves are named by it",
    )


def _datasets(cfg: Any, command: str | None) -> Iterator[tuple[Any, str, Any]]:
    """Yield the datasets of a configuration, with the section and the key of each."""
    if command != "predict":
        for name in ("training", "validation"):
            for i, data in enumerate(cfg[name].datasets if cfg[name] else ()):
                # The crop of training is that of its loss.
                section = cfg[name] if name == "validation" else OmegaConf.create({"crop": None})
                yield section, f"{name}.datasets[{i}]", data
    if command != "train" and cfg.inference is not None:
        yield cfg.inference, "inference.dataset", cfg.inference.dataset


def _require(section: Any, rules: dict[str, tuple[tuple[Any, ...], str]], path: str) -> None:
    for key, (allowed, why) in rules.items():
        value = _plain(OmegaConf.select(section, key))
        told = ", ".join("null" if choice is None else str(choice) for choice in allowed)
        require(value is None or value in allowed, f"{path}.{key} is {value!r}; allowed: {told} ({why})")


def _plain(value: Any) -> Any:
    """Return an enumeration's member by its name, and the losses that DIRECT would compute by theirs."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, list):
        names = [entry.get("function", "???") if isinstance(entry, dict) else entry for entry in value]
        # DIRECT's default is one without a name.
        return [name for name in names if name != "???"]
    return getattr(value, "name", value)


def require_dataset(data: Any, path: str) -> None:
    """Hold the section of a dataset to what is served, and to DIRECT's types: DIRECT holds that of inference alone."""
    require(
        hasattr(datasets, f"{data.name}Dataset"),
        f"{path}.name is {data.name!r}; allowed: a dataset of DIRECT, as FastMRI",
    )
    require(
        path != "inference.dataset" or data.name not in _WITHOUT_FILES,
        f"{path}.name is {data.name!r}; allowed: a dataset of files (DIRECT gives it --data-root, which those that "
        "draw their images do not take)",
    )
    _require(data, DATASET, path)
    schema = OmegaConf.structured(load_dataset_config(data.name))
    known = {*schema, *signature(getattr(datasets, f"{data.name}Dataset")).parameters}
    for key in set(data) - known:
        raise DeepenError(f"{path}.{key}: no such key; allowed: {', '.join(sorted(map(str, schema)))}")
    path = f"{path}.transforms"
    given = OmegaConf.create(OmegaConf.to_container(data.get("transforms") or OmegaConf.create({})))
    _take_untyped(given, set(schema.transforms.masking), f"{path}.masking")
    try:
        transforms = OmegaConf.merge(schema.transforms, given)
    except OmegaConfBaseException as error:
        raise DeepenError(f"{path}.{error.full_key}: {first_line(error)}; allowed: what DIRECT has there") from error
    _require(transforms, TRANSFORMS, path)
    percentile, key = transforms.normalization.scale_percentile, transforms.normalization.scaling_key
    require(
        percentile is not None or key is None,
        f"{path}.normalization.scale_percentile is null; allowed with a scaling_key: a number (DIRECT multiplies by a "
        "factor then that it has not divided by)",
    )
    _require_one_mask(data, transforms.masking, path)


def _require_one_mask(data: Any, masking: Any, path: str) -> None:
    """Hold a dataset to one source of masks, and to references that are fully sampled."""
    masks = [name for name in ("pass_mask", "compute_mask") if data.get(name)]
    masks += ["extra_keys"] if any("mask" in str(key) for key in data.get("extra_keys") or ()) else []
    require(
        masking is not None or bool(masks),
        f"{path}.masking is null; allowed: a mask, or pass_mask: true for the file's",
    )
    # DIRECT would draw a mask, and use no other.
    require(
        masking is None or not masks, f"{path}.masking is set, and {', '.join(masks)} beside it; allowed: one of them"
    )
    key, computed = data.get("kspace_key", "kspace_full"), bool(data.get("compute_mask"))
    require(
        not (computed or "sub" in key) or (path.startswith("inference") and masking is None),
        f"{path}: kspace_key {key} with compute_mask {computed} is undersampled already; allowed: kspace_full with a "
        "mask, as training and validation need references, or in inference no other mask",
    )


def require_data(dataset: Any, path: str) -> None:
    """Raise :class:`DeepenError` where a dataset that DIRECT has built has more dimensions or arrays than are used."""
    require(dataset.ndim == 2, f"{path} has slices of {dataset.ndim} dimensions; 2D only")
    require(
        not getattr(dataset, "pass_h5s", None) and not getattr(dataset, "pass_dictionaries", None),
        f"{path}: --initialization-images, --initialization-kspace and --noise are not used; allowed: none of them",
    )


def _take_untyped(transforms: Any, typed: set[str], path: str) -> None:
    """Remove what DIRECT reads, and has no type for: a crop by two numbers, and what masks of a name take besides."""
    crop, masking = OmegaConf.select(transforms, "cropping.crop"), transforms.get("masking")
    if OmegaConf.is_list(crop):
        transforms.cropping.crop = str(tuple(crop))
    if not masking:
        return
    name = masking.get("name")
    require(hasattr(subsample, f"{name}MaskFunc"), f"{path}.name is {name!r}; allowed: a mask of DIRECT, as Gaussian2D")
    require(not str(name).startswith("Kt"), f"{path}.name is {name!r}; allowed: masks of one image (2D only)")
    for key in set(signature(getattr(subsample, f"{name}MaskFunc")).parameters) - typed:
        masking.pop(key, None)
