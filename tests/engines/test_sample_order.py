"""The order of samples: DIRECT's, a function of the seed, and the same from any iteration on."""

import random
from itertools import chain, islice

import numpy as np
import pytest
import torch
from direct.data.samplers import ConcatDatasetBatchSampler
from torch.utils.data import TensorDataset

from direct_deepen.engines.training import SeededBatchSampler

SIZES = {"one": [7], "two": [7, 21]}


def datasets(sizes):
    return [TensorDataset(torch.zeros(size)) for size in sizes]


def batches(sizes, *, seed=5, start=0, count=60):
    sampler = SeededBatchSampler(datasets(sizes), 3, seed=seed, start=start)
    return [[int(index) for index in batch] for batch in islice(sampler, count)]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("start", [1, 2, 30])
def test_the_order_from_an_iteration_on_is_the_rest_of_the_whole(sizes, start):
    assert batches(sizes, start=start, count=60 - start) == batches(sizes)[start:]
    assert batches(sizes, start=start, count=30) != batches(sizes, count=30)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_order_follows_from_the_seed_whatever_the_global_generators_do(sizes, monkeypatch):
    expected = batches(sizes)
    assert batches(sizes, seed=6) != expected
    monkeypatch.setattr(random, "choices", lambda *_, **__: pytest.fail("Python's global generator was used"))
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: pytest.fail("NumPy's global generator was used"))
    assert batches(sizes) == expected


def test_the_order_is_that_of_direct():
    theirs = ConcatDatasetBatchSampler(datasets([7]), 3, seed=5)
    assert batches([7]) == [[int(index) for index in next(theirs)] for _ in range(60)]


def test_a_batch_is_of_one_dataset_drawn_by_the_sizes():
    found = batches(SIZES["two"], count=2000)
    second = [all(index >= 7 for index in batch) for batch in found]
    assert all(is_second or max(batch) < 7 for batch, is_second in zip(found, second, strict=True))
    # 2000 draws of probability 3/4: a standard deviation of 0.01.
    assert np.mean(second) == pytest.approx(0.75, abs=0.04)


def test_processes_share_the_permutations(monkeypatch):
    monkeypatch.setattr("direct.utils.communication.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("direct.utils.communication.get_rank", lambda rank=rank: rank)
        parts.append(list(chain.from_iterable(batches([8], count=8))))
    # Each process got 24 indices, the halves of six permutations.
    for epoch in range(6):
        together = [index for part in parts for index in part[4 * epoch : 4 * epoch + 4]]
        assert sorted(together) == list(range(8))
