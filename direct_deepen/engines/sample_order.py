"""The order in which training goes through its samples: that of DIRECT, from any iteration on."""

import torch
from direct.data.samplers import ConcatDatasetBatchSampler
from direct.utils import communication
from torch.utils.data import Dataset


class SeededBatchSampler(ConcatDatasetBatchSampler):
    """DIRECT's endless batches of samples, all of which follow from a seed.

    Parameters
    ----------
    datasets
        Datasets; a batch is of one of them, drawn by their sizes.
    batch_size
        Samples in a batch.
    seed
        The same in all processes: each gets its share of every permutation of a dataset.
    start
        Batches to pass over, those of the iterations that are done.
    """

    def __init__(self, datasets: list[Dataset], batch_size: int, *, seed: int, start: int) -> None:
        super().__init__(datasets, batch_size, seed)
        self._weights = torch.tensor(self.weights.tolist(), dtype=torch.float64)
        # DIRECT draws the dataset of a batch from Python's global generator, which nobody restores.
        self._generator = torch.Generator().manual_seed(seed + communication.get_rank())
        for _ in range(start):
            next(self)

    def __next__(self) -> list[torch.Tensor]:
        dataset = int(torch.multinomial(self._weights, 1, generator=self._generator))
        return next(self._batch_samplers[dataset])
