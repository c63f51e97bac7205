"""The samples of a posterior file, slice by slice: memory is that of one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch

from direct_deepen.errors import require, require_count
from direct_deepen.posterior.diagnostics import Diagnostics
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.posterior_file import open_output

HOW = "`model.inference.save_samples: true` in the configuration of `direct predict`, or `reconstruct --save-samples`"
"""What makes a file that holds samples."""


@dataclass(frozen=True)
class SavedSamples:
    """The samples of an open file, complex (slice, sample, row, column), and the attributes of the file."""

    dataset: h5py.Dataset
    attributes: Mapping[str, Any]
    num_chains: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        slices, _, rows, columns = self.dataset.shape
        return slices, rows, columns

    def posterior(self, number: int) -> Posterior:
        """Return the posterior of a slice, from 0, in the units of the file, without convergence."""
        images = torch.from_numpy(self.dataset[number])[:, None]
        return Posterior(images, Diagnostics(self.num_chains, len(images) // self.num_chains, None, None, None))


@contextmanager
def open_samples(path: Path) -> Iterator[SavedSamples]:
    """Open a posterior file for its samples; a :class:`DeepenError` where it holds none, and says how to get them."""
    with open_output(path) as file:
        require("samples" in file, f"{path}: holds no samples; {HOW}, writes them")
        samples, attributes = file["samples"], dict(file.attrs)
        require("num_samples" in attributes, f"{path}: has no attribute num_samples, the number of chains")
        chains, saved = int(attributes["num_samples"]), samples.shape[1]
        require_count(f"{path}: num_samples", chains)
        require(
            saved % chains == 0, f"{path}: has {saved} samples of {chains} chains; allowed: equally many of each chain"
        )
        yield SavedSamples(samples, attributes, chains)
