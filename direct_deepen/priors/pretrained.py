"""Trained energies that ship with the package."""

import logging
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from direct_deepen.errors import DeepenError, require, require_choice
from direct_deepen.priors import Energy, QuadraticEnergy

_logger = logging.getLogger(__name__)

_FOLDER = "weights"
_ENERGIES: dict[str, type[Energy]] = {"QuadraticEnergy": QuadraticEnergy}


def available_pretrained() -> tuple[str, ...]:
    """Return the names of the energies that ship with the package, the default first."""
    folder = resources.files("direct_deepen.priors") / _FOLDER
    return tuple(sorted(entry.name.removesuffix(".pt") for entry in folder.iterdir() if entry.name.endswith(".pt")))


def load_pretrained(name: str | None = None) -> Energy:
    r"""Return an energy that ships with the package, in evaluation mode, on the CPU, in single precision.

    It takes images of any size in scaled intensities: divide k-space by :func:`~direct_deepen.intensity_scale`, and
    multiply images by it afterwards. Its noise level is ε = 0.01 (:func:`pretrained_provenance`).

    Parameters
    ----------
    name
        One of :func:`available_pretrained`; the first of them by default.

    Raises
    ------
    DeepenError
        If there is no such energy.
    """
    content = _content(name)
    energy = _ENERGIES[content["energy"]](**content["arguments"])
    energy.load_state_dict(content["weights"])
    return energy.eval()


def pretrained_provenance(name: str | None = None) -> dict[str, Any]:
    """Return how the energy was trained: data, configuration, seed, versions, noise level.

    Raises
    ------
    DeepenError
        If there is no such energy.
    """
    return dict(_content(name)["provenance"])


def save_pretrained(path: Path, energy: Energy, arguments: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Write an energy as :func:`load_pretrained` reads it.

    Parameters
    ----------
    path
        File ``<name>.pt``.
    energy
        Energy of one of the classes of this package.
    arguments
        Arguments of its constructor.
    provenance
        Numbers and strings by name.

    Raises
    ------
    DeepenError
        If the energy is of another class.
    """
    kind = type(energy).__name__
    require_choice("energy", kind, tuple(_ENERGIES))
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in energy.state_dict().items()}
    torch.save({"energy": kind, "arguments": arguments, "weights": weights, "provenance": provenance}, path)


def _content(name: str | None) -> dict[str, Any]:
    names = available_pretrained()
    require(len(names) > 0, "no weights come with this installation; allowed: an installation with its package data")
    if name is None:
        name = names[0]
    require_choice("name", name, names)
    path = resources.files("direct_deepen.priors") / _FOLDER / f"{name}.pt"
    _logger.info("weights %s", path)
    try:
        with resources.as_file(path) as file:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise DeepenError(f"{path}: damaged weights ({type(error).__name__}); reinstall direct-deepen") from error
    return content
