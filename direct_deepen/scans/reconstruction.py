"""The reconstruction of a scan: slice by slice, so that it can go on where it ended, and needs the memory of one."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from direct_deepen.engines.reconstruction import misfit_arrays, reconstruct
from direct_deepen.errors import DeepenError, require, require_count, require_positive
from direct_deepen.files import write_file
from direct_deepen.inference import Inference, Langevin, Map
from direct_deepen.physics.scale import FIELD_OF_VIEW
from direct_deepen.physics.sense_operator import SenseOperator
from direct_deepen.posterior.posterior_file import (
    IN_DATA_UNITS,
    MEANING,
    REFERENCE,
    FileAttributes,
    final_estimate,
    open_output,
    posterior_path,
    write_posterior,
)
from direct_deepen.priors.pretrained import available_pretrained, load_pretrained, pretrained_provenance
from direct_deepen.progress import progress_bar
from direct_deepen.scans.affine import affine_of
from direct_deepen.scans.preparation import Choices, PreparedScan, PreparedSlice, prepare
from direct_deepen.scans.scan import Scan
from direct_deepen.scans.trajectories import PreparedTrajectory, prepare_trajectory
from direct_deepen.version import VERSION

_SETTINGS, _FOUND = "settings_sha256", "found"
"""An attribute of the file, and what a part has besides arrays."""
_UNKNOWN_NOISE = 0.01
"""ε in scaled intensities where nothing tells it: that of the phantoms' weights, and in the middle of the others'."""


@dataclass(frozen=True)
class Prior:
    """An energy, and what it expects of the data."""

    energy: nn.Module
    intensity_scale: str
    """Kind of the intensity scale of its training."""
    name: str
    """What it is called in files."""
    noise_std: float = _UNKNOWN_NOISE
    """ε₀ of its training, in scaled intensities."""


def pretrained_prior(name: str | None = None) -> Prior:
    """Return weights that come with the package; a :class:`DeepenError` for a name that is none of theirs."""
    energy, provenance = load_pretrained(name), pretrained_provenance(name)
    return Prior(
        energy,
        provenance.get("intensity_scale", FIELD_OF_VIEW),
        name or available_pretrained()[0],
        provenance.get("noise_std") or _UNKNOWN_NOISE,
    )


@dataclass(frozen=True)
class Method:
    """How the posterior is explored; the defaults are those of the weights that come along."""

    num_samples: int = 16
    """Chains; zero for MAP alone."""
    num_steps: int = 40
    """Steps of a chain."""
    seed: int = 0
    """Of the chains."""
    prior_weight: float = 1.0
    """w of the cost ½‖Ax − b‖² + w·E(x)."""
    save_samples: bool = False
    """Whether samples are written themselves."""

    def __post_init__(self) -> None:
        require_count("num_samples", self.num_samples, least=0)
        require_count("num_steps", self.num_steps)
        require_count("seed", self.seed, least=0)
        require_positive("prior_weight", self.prior_weight)

    def inference(self, noise_std: float, *, noise_by_ring: bool = False) -> Inference:
        """Return the inference of the configuration of these weights, for ε in scaled intensities."""
        shared: dict[str, Any] = {
            "noise_std": noise_std, "noise_by_ring": noise_by_ring, "prior_weight": self.prior_weight,
            "tolerance": 1e-5, "max_iterations": 60,
        }  # fmt: skip
        if self.num_samples == 0:
            return Map(**shared)
        return Langevin(
            num_samples=self.num_samples,
            num_steps=self.num_steps,
            keep=min(10, self.num_steps),
            save_samples=self.save_samples,
            preconditioner=0.25,
            averaged_noise=True,
            antithetic=True,
            **shared,
        )


def reconstruct_slice(
    prepared: PreparedSlice, prior: Prior, method: Method, *, snr: bool = False
) -> dict[str, np.ndarray]:
    """Return what the posterior file has of a slice, by name: arrays in the unit of k-space, or of its noise η (SNR).

    A :class:`DeepenError` if nothing tells the noise where its unit is asked for.
    """
    problem, eta = prepared.problem, prepared.noise_std
    scale = float(problem.scale)
    noise_std = prior.noise_std if eta is None else 2**0.5 * eta / scale
    # Rings are those of a grid, and what is known of the noise is where their levels begin.
    inference = method.inference(noise_std, noise_by_ring=eta is not None and isinstance(problem.A, SenseOperator))
    result = reconstruct(problem, prior.energy, inference, seed=method.seed)
    arrays = result.arrays | misfit_arrays(problem, prior.energy, inference, result.image)
    arrays.setdefault("noise_std", torch.full_like(problem.scale, noise_std))
    if prepared.reference is not None:
        arrays[REFERENCE] = prepared.reference[None]
    require(
        not snr or eta is not None, "the noise level is unknown; allowed with --snr: data that tell it, or --noise-std"
    )
    unit = eta if snr and eta is not None else 1.0
    return {name: (value[0] / (unit if name in IN_DATA_UNITS else 1)).numpy() for name, value in arrays.items()}


@dataclass(frozen=True)
class ReconstructedSlices:
    """Slices in the unit of their k-space, and what was found of them."""

    arrays: Mapping[str, np.ndarray]
    """What a posterior file has, by its names there, with the slice first; what a slice lacks is zero."""
    found: Sequence[Mapping[str, str]]
    """What was found and chosen of every slice; nothing of one without a signal."""

    @property
    def image(self) -> np.ndarray:
        """The posterior mean, or MAP where there are no samples; complex (slice, row, column)."""
        return self.arrays[final_estimate(self.arrays)]

    @property
    def map(self) -> np.ndarray:
        """The MAP images, complex (slice, row, column)."""
        return self.arrays["map"]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of u, real (slice, row, column); a :class:`DeepenError` without samples."""
        require("std" in self.arrays, "there is no standard deviation; allowed: num_samples of 2 and more")
        return self.arrays["std"]


def reconstruct_kspace(
    kspace: np.ndarray | torch.Tensor,
    sampling_mask: np.ndarray | torch.Tensor | None = None,
    *,
    noise: np.ndarray | torch.Tensor | None = None,
    choices: Choices | None = None,
    method: Method | None = None,
    prior: Prior | None = None,
) -> ReconstructedSlices:
    """Reconstruct k-space with its uncertainty, as ``direct-deepen reconstruct`` does with a file.

    Parameters
    ----------
    kspace
        Complex ([slice,] coil, row, column), or (row, column) of one coil, centred; zeros where it was not sampled.
    sampling_mask
        Where it was: over columns, or (row, column), of all slices or each; by default where it is not zero.
    noise
        Noise of a scan without excitation, complex (coil, samples), or its covariance, (coil, coil).
    choices, method, prior
        What is chosen in place of what is found, how the posterior is explored, and the weights; by default those that
        come along.

    Raises
    ------
    DeepenError
        If k-space is none, as that of images, or lacks what a choice needs.
    """
    array = np.asarray(kspace.cpu() if isinstance(kspace, torch.Tensor) else kspace)
    require(2 <= array.ndim <= 4, f"kspace has shape {array.shape}; allowed: ([slice,] coil, row, column)")
    require(np.iscomplexobj(array), f"kspace has type {array.dtype}; allowed: complex numbers")
    prior = prior or pretrained_prior()
    known = None if noise is None else np.asarray(noise)
    square = known is not None and known.shape[0] == known.shape[-1]
    scan = Scan(
        Path("kspace"), "array", array.reshape((1,) * (4 - array.ndim) + array.shape),
        mask=None if sampling_mask is None else np.asarray(sampling_mask),
        noise=None if square else known, noise_covariance=known if square else None,
    )  # fmt: skip
    prepared = look_at(scan, choices or Choices(intensity_scale=prior.intensity_scale))
    slices, found = list[dict[str, np.ndarray]](), list[Mapping[str, str]]()
    for number in range(prepared.num_slices):
        if prepared.is_empty(number):
            slices.append({})
            found.append({})
            continue
        one = prepared.slice(number)
        slices.append(reconstruct_slice(one, prior, method or Method()))
        found.append(dict(prepared.found) | dict(one.found))
    like = next(arrays for arrays in slices if arrays)
    stacked = {
        name: np.stack([arrays.get(name, np.zeros_like(value)) for arrays in slices]) for name, value in like.items()
    }
    return ReconstructedSlices(stacked, found)


def look_at(scan: Scan, choices: Choices | None = None) -> PreparedScan | PreparedTrajectory:
    """Look at a scan as a whole, on a grid or not; a :class:`DeepenError` if it cannot be what it should be."""
    return prepare(scan, choices) if scan.trajectory is None else prepare_trajectory(scan, choices)


@dataclass(frozen=True)
class Run:
    """A scan on its way to a posterior file, in a folder of its own parts."""

    prepared: PreparedScan | PreparedTrajectory
    prior: Prior
    method: Method
    folder: Path
    snr: bool = False

    @property
    def path(self) -> Path:
        """Where the posterior file goes."""
        return posterior_path(self.folder, Path(f"{self.prepared.scan.name}.h5"))

    def reconstruct(self, numbers: list[int] | None = None) -> Path:
        """Reconstruct all slices, or some; return the file, whose ``configuration`` is what was found.

        Slices that an earlier run with the same settings has finished are not computed again.
        """
        prepared = self.prepared
        chosen = list(range(prepared.num_slices)) if numbers is None else numbers
        settings = self._settings(chosen)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        prefix = f".{prepared.scan.name}.parts-"
        parts = self.folder / f"{prefix}{digest}"
        require(
            not all(map(prepared.is_empty, chosen)),
            f"{prepared.scan.path}: no slice of those asked for has a signal; allowed: another",
        )
        if self._is_finished(digest):
            return self.path
        for number in progress_bar(chosen, name="reconstruct", unit="slice"):
            part = parts / f"{number:06d}.npz"
            if not part.exists():
                write_file(part, self._part(number))
        found = next(told for told in (_found(parts, number) for number in chosen) if told)
        attributes = self._attributes(dict(prepared.found) | found, chosen) | {_SETTINGS: digest}
        write_posterior(self.path, _parts(parts, chosen), len(chosen), attributes)
        for stale in self.folder.glob(f"{prefix}*"):
            shutil.rmtree(stale, ignore_errors=True)
        return self.path

    def _part(self, number: int) -> bytes:
        """Return a slice as a file: its arrays, and what was found of it; nothing of an empty one."""
        arrays: dict[str, Any] = {"slice_number": np.array(number), _FOUND: np.array("{}")}
        if not self.prepared.is_empty(number):
            one = self.prepared.slice(number)
            arrays |= reconstruct_slice(one, self.prior, self.method, snr=self.snr)
            arrays[_FOUND] = np.array(json.dumps(dict(one.found)))
        content = io.BytesIO()
        np.savez(content, **arrays)
        return content.getvalue()

    def _is_finished(self, digest: str) -> bool:
        try:
            if self.path.is_file():
                with open_output(self.path) as file:
                    return file.attrs.get(_SETTINGS) == digest
        except DeepenError:
            pass  # It is damaged, and written anew.
        return False

    def _settings(self, numbers: list[int]) -> dict[str, Any]:
        """Return all that the result depends on."""
        scan, choices = self.prepared.scan, self.prepared.choices
        weights = hashlib.sha256()
        for name, tensor in self.prior.energy.state_dict().items():
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        maps = choices.sensitivity_map
        status = _file_of(scan.path).stat()
        return {
            "file": [str(scan.path.resolve()), status.st_size, status.st_mtime_ns],
            "choices": asdict(replace(choices, sensitivity_map=None)),
            "maps": None if maps is None else hashlib.sha256(np.ascontiguousarray(maps).tobytes()).hexdigest(),
            "shape": list(scan.kspace.shape),
            "kind": scan.kind,
            "method": asdict(self.method),
            "weights": weights.hexdigest(),
            "noise_std": self.prior.noise_std,
            "numbers": numbers,
            "snr": self.snr,
            "version": VERSION,
        }

    def _attributes(self, found: Mapping[str, str], numbers: list[int]) -> FileAttributes:
        prepared, method = self.prepared, self.method
        scan = prepared.scan
        attributes: FileAttributes = {
            **MEANING,
            "direct_deepen_version": VERSION,
            "torch_version": str(torch.__version__),
            "seed": method.seed,
            "device": "cpu",
            "data": str(scan.path),
            "name": scan.path.name,
            "prior": self.prior.name,
            "configuration": yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True),
            "reconstruction_size": list(map(float, prepared.size)),
        }
        if self.snr:
            attributes["units"] = f"{', '.join(IN_DATA_UNITS)}: of the noise per real component (SNR)"
        if method.num_samples > 0:
            inference = method.inference(self.prior.noise_std)
            assert isinstance(inference, Langevin)
            names = ("num_samples", "num_steps", "keep", "averaged_noise", "momentum")
            attributes |= {name: getattr(inference, name) for name in names}
            attributes["quantile_probabilities"] = list(inference.quantiles)
        if prepared.voxel_size is not None:
            attributes["voxel_size"] = list(prepared.voxel_size)
        affine = affine_of(prepared, numbers)
        if affine is not None:
            attributes["affine"] = affine.ravel().tolist()
        return attributes


def _found(folder: Path, number: int) -> dict[str, str]:
    with np.load(folder / f"{number:06d}.npz") as part:
        told: dict[str, str] = json.loads(str(part[_FOUND]))
        return told


def _parts(folder: Path, numbers: list[int]) -> Iterator[dict[str, np.ndarray]]:
    for number in numbers:
        with np.load(folder / f"{number:06d}.npz") as part:
            yield {name: array for name, array in part.items() if name != _FOUND}


def _file_of(path: Path) -> Path:
    """Return the file of numbers of a scan whose path may have no ending, as BART's."""
    return path if path.is_file() else path.with_name(f"{path.name}.cfl")
