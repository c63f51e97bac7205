"""Trained energies that ship with the package."""

import logging
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from direct_deepen.errors import DeepenError, require, require_choice
from direct_deepen.priors import NoiseConditionalEnergy, QuadraticEnergy

_logger = logging.getLogger(__name__)

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (QuadraticEnergy, NoiseConditionalEnergy)}


def available_pretrained() -> tuple[str, ...]:
    """Return the names of the energies that ship with the package, the default first."""
    names = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".pt") for name in names if name.endswith(".pt")))


def load_pretrained(name: str | None = None) -> QuadraticEnergy | NoiseConditionalEnergy:
    """Return a prior that ships with the package, in evaluation mode, on the CPU, in single precision.

    It takes images of any size in scaled intensities: divide k-space by :func:`~direct_deepen.intensity_scale` of the
    ``intensity_scale`` in its :func:`pretrained_provenance`, and multiply images by it afterwards. ``brain``, of all
    noise levels, is an energy for data of noise ε by ``at_noise(load_pretrained(), noise_std)``; so is that of the
    phantoms, trained at ε₀ = 0.01, which may also be used as it is.

    ``name`` is one of :func:`available_pretrained`, the first of them by default; a :class:`DeepenError` for another.
    """
    content = _content(name)
    energy: QuadraticEnergy | NoiseConditionalEnergy = _KINDS[content["energy"]](**content["arguments"])
    energy.load_state_dict(content["weights"])
    if isinstance(energy, QuadraticEnergy):
        energy.prior_noise_std = content["provenance"].get("noise_std")
    return energy.eval()


def pretrained_provenance(name: str | None = None) -> dict[str, Any]:
    """Return how a prior was trained: data, configuration, seed, versions, intensity scale, noise level.

    Name and errors are those of :func:`load_pretrained`.
    """
    content = _content(name)
    return {"energy": content["energy"], **content["provenance"]}


def save_pretrained(path: Path, energy: nn.Module, arguments: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Write a prior, made of these arguments, to ``<name>.pt`` as :func:`load_pretrained` reads it."""
    kind = type(energy).__name__
    require_choice("energy", kind, tuple(_KINDS))
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in energy.state_dict().items()}
    torch.save({"energy": kind, "arguments": arguments, "weights": weights, "provenance": provenance}, path)


def _folder() -> Traversable:
    return resources.files("direct_deepen.priors") / "weights"


def _content(name: str | None) -> dict[str, Any]:
    names = available_pretrained()
    require(len(names) > 0, "no weights come with this installation; allowed: an installation with its package data")
    name = names[0] if name is None else name
    require_choice("name", name, names)
    path = _folder() / f"{name}.pt"
    _logger.info("weights %s", path)
    try:
        with resources.as_file(path) as file:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise DeepenError(f"{path}: damaged weights ({type(error).__name__}); reinstall direct-deepen") from error
    return content
