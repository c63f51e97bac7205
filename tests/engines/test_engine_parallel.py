"""Two processes that train one model on different data, as ``direct train --num-gpus 2`` does, but on the CPU."""

import sys

import killed_process  # noqa: F401  (what the processes are copies of)
import parallel_worker
import pytest
import tiny_direct
import torch
import torch.multiprocessing

from direct_deepen.engines.commands import torch_seed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    tiny_direct.write_volumes(folder / "data", ["a", "b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["direct", "train", "runs", "--seed", "7"])
        torch.multiprocessing.start_processes(parallel_worker.run, (folder,), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_both_processes_know_the_seed_of_the_command_that_started_them(ranks):
    assert [rank["seed"] for rank in ranks] == 2 * [torch_seed(7)]


@pytest.mark.parametrize("iteration", [parallel_worker.WARM_START, parallel_worker.CONTRASTIVE])
def test_both_processes_get_the_mean_of_the_gradients_that_each_gets_alone(ranks, iteration):
    alone, parallel = ([rank[kind][iteration]["gradients"] for rank in ranks] for kind in ("alone", "parallel"))
    assert set(parallel[0]) == set(alone[0])
    for name, gradient in parallel[0].items():
        assert torch.equal(gradient, parallel[1][name])
        mean = (alone[0][name] + alone[1][name]) / 2
        # One sum of two numbers, in single precision.
        torch.testing.assert_close(gradient, mean, rtol=1e-5, atol=1e-6 * float(mean.abs().max()))
        assert not torch.allclose(alone[0][name], alone[1][name], rtol=1e-3)


def test_both_processes_draw_what_they_drew_alone(ranks):
    for rank in ranks:
        for iteration in (parallel_worker.WARM_START, parallel_worker.CONTRASTIVE):
            assert torch.equal(rank["alone"][iteration]["images"], rank["parallel"][iteration]["images"])


def test_processes_draw_different_noise_and_samples_for_the_same_data(ranks):
    first, second = (rank["same"]["images"] for rank in ranks)
    # Noise on the true images, and samples: all four images of the batch of two differ everywhere.
    assert first.shape == second.shape == (4, 32, 32)
    assert bool((first != second).all())


def test_trouble_in_one_process_takes_both_back(ranks):
    for rank in ranks:
        assert rank["troubled"]["factor"] == 0.5
        assert rank["troubled"]["gradients"] == []
