"""What a terminal shows of a reconstruction: slices not to be trusted, and the quality where there is a reference."""

from collections.abc import Iterator

import numpy as np
import torch

from direct_deepen.evaluation.metrics import posterior_quality, quality
from direct_deepen.posterior.posterior_file import REFERENCE, PosteriorVolume, misfit_text


def summary(volume: PosteriorVolume) -> str:
    """Return lines for a volume: a doubt, where there is one, and a line a slice that has a reference with a signal."""
    doubts = misfit_text(volume.path)
    return "\n".join([*([f"  {doubts}"] if doubts else []), *_qualities(volume)])


def _qualities(volume: PosteriorVolume) -> Iterator[str]:
    for number, reference in enumerate(volume.arrays.get(REFERENCE, ())):
        if not reference.any():
            continue
        told = []
        for name in volume.estimates():
            score = quality(_tensor(volume.arrays[name][number]), _tensor(reference))
            told.append(f"{name} {score.psnr:.2f} dB, SSIM {score.ssim:.3f}")
        if "std" in volume.arrays:
            chains = int(np.asarray(volume.attributes["num_samples"]))
            mean, std = (_tensor(volume.arrays[name][number]) for name in ("mean", "std"))
            found = posterior_quality(mean, std, _tensor(reference), num_chains=chains)
            told.append(f"90 % intervals hold {found.coverage_90:.1%}")
        yield f"  slice {int(volume.arrays['slice_number'][number]) + 1}: {'; '.join(told)}"


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
