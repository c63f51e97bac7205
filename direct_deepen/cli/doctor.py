"""Check the installation.

Versions, device, threads, whether DIRECT finds the plugin, and one slice reconstructed and sampled with the pretrained
weights of the package. Exit code 2 if something is broken.
"""

import argparse
import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch

from direct_deepen import (
    Chains,
    Posterior,
    SenseOperator,
    Stopping,
    at_noise,
    intensity_scale,
    langevin,
    load_pretrained,
    mm_map,
    sense,
)  # fmt: skip
from direct_deepen.cli.verbosity import versions
from direct_deepen.errors import require
from direct_deepen.machine import available_cores
from direct_deepen.physics.noise import complex_normal
from direct_deepen.physics.scale import OBJECT

EXAMPLES = """\
example:
  direct-deepen doctor"""

_OPTIONAL = {"nilearn": "the brains of `direct-deepen phantom`", "deepinv": "`make test-peer`"}
_CHECK_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What is wrong with an installation is not known beforehand: any of this is reported, and the other checks run."""

_SIZE, _COILS, _NOISE_STD = 48, 4, 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add none."""


def run(args: argparse.Namespace) -> None:
    """Print a line for every check; one that fails does not end the others."""
    checks: dict[str, Callable[[], str]] = {
        "versions": versions,
        "device": _device,
        "threads": _threads,
        "plugin": _plugin,
        "self-test": _self_test,
    }
    failed = []
    for name, check in checks.items():
        try:
            mark, detail = "ok ", check()
        except _CHECK_ERRORS as error:
            mark, detail = "BAD", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            failed.append(name)
        print(f"{mark} {name:11} {detail}", flush=True)
    for name, use in _OPTIONAL.items():
        try:
            detail = version(name)
        except PackageNotFoundError:
            detail = f"not installed; only {use} need it"
        print(f"ok  {name:11} {detail}")
    require(not failed, f"not in order: {', '.join(failed)}")


def _device() -> str:
    if not torch.cuda.is_available():
        return "CPU only: give DIRECT `--device cpu --num-workers 0`"
    return f"CUDA: {', '.join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))}"


def _threads() -> str:
    advice = "; OMP_WAIT_POLICY=passive is faster if other programs are running"
    known = "OMP_WAIT_POLICY" in os.environ
    return f"{torch.get_num_threads()} of PyTorch on {len(available_cores())} cores{'' if known else advice}"


def _plugin() -> str:
    from direct.environment import load_model_config_from_name, load_model_from_name
    from direct.nn import deepen

    names = ("deepen.priors.QuadraticEnergy", "deepen.priors.DiffusionDenoiser")
    for name in names:
        load_model_from_name(name)
        load_model_config_from_name(name)
    return f"DIRECT finds {', '.join(names)} in {os.path.dirname(deepen.__file__)}"


def _self_test() -> str:
    """Reconstruct one slice of a disc with the pretrained weights, and sample its posterior."""
    import sigpy.mri

    from direct_deepen.evaluation.metrics import quality

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
    scale = intensity_scale(A, kspace, kind=OBJECT)
    data, energy = kspace / scale[:, None, None, None], at_noise(load_pretrained(), _NOISE_STD)
    start = sense(A, data)
    image = mm_map(A, data, energy, init=start, stopping=Stopping(max_iterations=100), progress=True).image
    samples = langevin(
        A, data, energy, noise_std=_NOISE_STD, init=image, chains=Chains(2, 10), generator=generator, progress=True
    )
    spread = float(Posterior.from_samples(samples).std.mean())
    before, after = (quality(found[0] * scale, truth[0]).psnr for found in (start, image))
    require(after > before, f"MAP has {after:.1f} dB, SENSE {before:.1f} dB; MAP should be better")
    require(spread > 0, "all samples of the posterior are equal")
    seconds = time.perf_counter() - begin
    return f"SENSE {before:.1f} dB, MAP {after:.1f} dB, mean standard deviation {spread:.3f}; {seconds:.1f} s"
