"""Checks of an installation: versions, devices, the plugin as DIRECT finds it, and one slice from end to end."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import sigpy.mri
import torch

from direct_deepen import __version__
from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.inference import langevin, mm_map
from direct_deepen.physics import SenseOperator, intensity_scale, sense
from direct_deepen.physics.noise import complex_normal
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.priors.pretrained import load_pretrained

_OPTIONAL = {"nilearn": "the brains of `direct-deepen phantom`", "deepinv": "`make test-peer`"}
_CHECK_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What is wrong with an installation is not known beforehand: any of this is reported, and the other checks run."""

_SIZE, _COILS, _NOISE_STD = 48, 4, 0.01


class Finding(NamedTuple):
    """What was checked, what was found, in one line, and whether that is in order."""

    name: str
    detail: str
    passed: bool = True


def check_installation() -> Iterator[Finding]:
    """Yield the findings one by one; a check that fails does not end the others."""
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "device": _device,
        "threads": _threads,
        "plugin": _plugin,
        "self-test": _self_test,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, check())
        except _CHECK_ERRORS as error:
            text = (str(error).splitlines() or [""])[0]
            yield Finding(name, f"{type(error).__name__}: {text}", passed=False)
    for name, use in _OPTIONAL.items():
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, f"not installed; only {use} need it")


def _versions() -> str:
    packages = {"direct-recon": "DIRECT", "torch": "PyTorch", "sigpy": "sigpy"}
    found = ", ".join(f"{title} {version(package)}" for package, title in packages.items())
    return f"direct-deepen {__version__}, {found}, Python {platform.python_version()}, {platform.system()}"


def _device() -> str:
    if not torch.cuda.is_available():
        return "CPU only: give DIRECT `--device cpu --num-workers 0`"
    return f"CUDA: {', '.join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))}"


def _threads() -> str:
    advice = "; OMP_WAIT_POLICY=passive is faster if other programs are running"
    known = "OMP_WAIT_POLICY" in os.environ
    return f"{torch.get_num_threads()} of PyTorch on {len(os.sched_getaffinity(0))} cores{'' if known else advice}"


def _plugin() -> str:
    environment = import_module("direct.environment")
    names = ("deepen.priors.QuadraticEnergy", "deepen.priors.DiffusionDenoiser")
    for name in names:
        environment.load_model_from_name(name)
        environment.load_model_config_from_name(name)
    folder = os.path.dirname(str(import_module("direct.nn.deepen").__file__))
    return f"DIRECT finds {', '.join(names)} in {folder}"


def _self_test() -> str:
    """Reconstruct one slice of a disc with the pretrained weights, and sample its posterior."""
    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, _SIZE)] * 2, indexing="ij")
    radius = torch.hypot(x, 1.2 * y)
    truth = (0.4 * (radius < 0.8) + 0.3 * (radius < 0.5))[None].to(torch.complex64)
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((_COILS, _SIZE, _SIZE)))[None].to(torch.complex64)
    mask = torch.rand(1, 1, _SIZE, _SIZE, generator=generator) < 0.35
    centre = slice(_SIZE // 2 - 4, _SIZE // 2 + 4)
    mask[..., centre, centre] = True
    A = SenseOperator(maps, mask)
    noise = complex_normal((1, _COILS, _SIZE, _SIZE), generator=generator)
    kspace = A.forward(truth) + _NOISE_STD / 2**0.5 * mask * noise
    scale = intensity_scale(A, kspace)
    data, energy = kspace / scale[:, None, None, None], load_pretrained()
    start = sense(A, data)
    image = mm_map(A, data, energy, init=start, max_iterations=100, progress=True).image
    samples = langevin(
        A, data, energy, noise_std=_NOISE_STD, num_samples=2, num_steps=10, init=image, generator=generator,
        progress=True,
    )  # fmt: skip
    spread = float(Posterior.from_samples(samples).std.mean())
    before, after = (quality(found[0] * scale, truth[0]).psnr for found in (start, image))
    require(after > before, f"MAP has {after:.1f} dB, SENSE {before:.1f} dB; MAP should be better")
    require(spread > 0, "all samples of the posterior are equal")
    seconds = time.perf_counter() - begin
    return f"SENSE {before:.1f} dB, MAP {after:.1f} dB, mean standard deviation {spread:.3f}; {seconds:.1f} s"
