"""Is this installation in order? Versions, devices, the plugin as DIRECT finds it, and one slice from end to end."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from direct_deepen import __version__
from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.inference import langevin, mm_map
from direct_deepen.physics import SenseOperator, intensity_scale, normalize_sensitivity_map, sense
from direct_deepen.physics.noise import complex_normal
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.priors.pretrained import load_pretrained

_EXTRAS = {
    "nilearn": "the brains of `direct-deepen phantom`",
    "deepinv": "`make test-peer`",
}
_ILLNESSES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What is wrong with an installation is not known beforehand: all of this is to be told, and the rest looked at."""

_SIZE = 48
_COILS = 4
_NOISE_STD = 0.01


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    name
        What was looked at.
    detail
        What was found, in one line.
    passed
        Whether it is in order.
    """

    name: str
    detail: str
    passed: bool = True


def examine() -> Iterator[Finding]:
    """Yield the findings as they come; a check that fails, whatever it fails with, does not end the others."""
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
        except _ILLNESSES as error:
            text = (str(error).splitlines() or [""])[0]
            yield Finding(name, f"{type(error).__name__}: {text}", passed=False)
    yield from (_extra(name, use) for name, use in _EXTRAS.items())


def _versions() -> str:
    packages = {"direct-recon": "DIRECT", "torch": "PyTorch", "sigpy": "sigpy"}
    found = ", ".join(f"{title} {version(package)}" for package, title in packages.items())
    return f"direct-deepen {__version__}, {found}, Python {platform.python_version()}, {platform.system()}"


def _device() -> str:
    if not torch.cuda.is_available():
        return "CPU only: give DIRECT `--device cpu --num-workers 0`"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"CUDA: {', '.join(names)}"


def _threads() -> str:
    policy = os.environ.get("OMP_WAIT_POLICY")
    advice = "" if policy else "; OMP_WAIT_POLICY=passive is faster where other programs run beside"
    return f"{torch.get_num_threads()} of PyTorch on {len(os.sched_getaffinity(0))} cores{advice}"


def _plugin() -> str:
    environment = import_module("direct.environment")
    names = ("deepen.energies.QuadraticEnergy", "deepen.systems.DPS")
    for name in names:
        environment.load_model_from_name(name)
        environment.load_model_config_from_name(name)
    folder = os.path.dirname(str(import_module("direct.nn.deepen").__file__))
    return f"DIRECT finds {', '.join(names)} in {folder}"


def _self_test() -> str:
    """Reconstruct one slice of a disc with the weights that come along, and sample its posterior."""
    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, _SIZE)] * 2, indexing="ij")
    radius = (x**2 + (1.2 * y) ** 2).sqrt()
    truth = (0.4 * (radius < 0.8) + 0.3 * (radius < 0.5))[None].to(torch.complex64)
    angles = torch.arange(_COILS) * 2 * torch.pi / _COILS
    maps = torch.stack([torch.exp(-((x - a.cos()) ** 2) - (y - a.sin()) ** 2) for a in angles])[None]
    mask = torch.rand(1, 1, _SIZE, _SIZE, generator=generator) < 0.35
    middle = slice(_SIZE // 2 - 4, _SIZE // 2 + 4)
    mask[..., middle, middle] = True
    A = SenseOperator(normalize_sensitivity_map(maps.to(torch.complex64)), mask)
    noise = complex_normal((1, _COILS, _SIZE, _SIZE), generator=generator)
    kspace = A.forward(truth) + _NOISE_STD / 2**0.5 * mask * noise
    scale = intensity_scale(A, kspace)
    data = kspace / scale[:, None, None, None]
    energy = load_pretrained()
    start = sense(A, data)
    result = mm_map(A, data, energy, init=start, max_iterations=100, progress=True)
    samples = langevin(
        A,
        data,
        energy,
        noise_std=_NOISE_STD,
        num_samples=2,
        num_steps=10,
        init=result.image,
        generator=generator,
        progress=True,
    )
    spread = float(Posterior.from_samples(samples).std.mean())
    before, after = (quality(image[0] * scale, truth[0]).psnr for image in (start, result.image))
    require(after > before, f"MAP has {after:.1f} dB, SENSE {before:.1f} dB; MAP is to be better")
    require(spread > 0, "samples of the posterior do not differ")
    seconds = time.perf_counter() - begin
    return f"SENSE {before:.1f} dB, MAP {after:.1f} dB, samples spread by {spread:.3f}; {seconds:.1f} s"


def _extra(name: str, use: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, f"not installed; only {use} need it")
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "of unknown version")
