"""Training where DIRECT wraps the model in DataParallel: it sees two GPUs, and ``--num-gpus`` is 1."""

import logging

import direct.engine
import pytest
import tiny_direct
import torch
from torch.nn.parallel import replicate as replication


class TwoReplicas(torch.nn.DataParallel):
    """DataParallel on the CPU, with the replicas that ``torch.nn.parallel.replicate`` makes on GPUs."""

    def forward(self, *arguments):
        copies = lambda tensors, devices, detach=False: [[tensor * 1 for tensor in tensors] for _ in devices]  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replication, "_broadcast_coalesced_reshape", copies)
            first, _ = replication.replicate(self.module, [0, 1])
        return first(*arguments)


SYSTEMS = {
    "demo_deepen": "chains of an energy",
    "phantom_muse": "score matching",
    "phantom_elder": "an unrolled gradient descent",
    "phantom_mol": "an equilibrium",
    "phantom_dps": "a diffusion",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_uses_one_of_two_gpus_and_says_so_once(tmp_path, volumes, monkeypatch, caplog, name):
    config = tiny_direct.configuration(name, iterations=6)
    alone = tiny_direct.direct_train(tmp_path / "alone", config, volumes)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(direct.engine, "DataParallel", TwoReplicas)
    caplog.clear()
    seen = tiny_direct.direct_train(tmp_path / "two", config, volumes)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in warnings if "GPU" in line] == [
        "2 GPUs are visible, and training uses one: with --num-gpus 2 it uses them all."
    ]
    expected = tiny_direct.weights_of(alone, 5)
    for key, weight in tiny_direct.weights_of(seen, 5).items():
        assert torch.equal(weight, expected[key])
