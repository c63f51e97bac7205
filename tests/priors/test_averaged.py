"""The running average of weights."""

import pytest
import torch
from torch import nn

from direct_deepen.priors import Averaged


def scalar(value):
    layer = nn.Linear(1, 1, bias=False).double()
    layer.weight.data.fill_(value)
    return layer


def test_the_average_follows_its_recursion_and_the_network_is_left_alone():
    averaged = Averaged(scalar(0.0), 0.5)
    expected = 0.0
    for number, value in enumerate([1.0, 2.0, -3.0, 4.0], start=1):
        averaged.module.weight.data.fill_(value)
        averaged.update()
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
        assert float(averaged.average.weight.detach()) == pytest.approx(expected)
        assert float(averaged.module.weight.detach()) == value


def test_training_uses_the_network_and_evaluation_the_average():
    averaged = Averaged(scalar(2.0), 0.9)
    averaged.module.weight.data.fill_(5.0)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(averaged.train()(one).detach()) == 5.0
    assert float(averaged.eval()(one)) == 2.0


def test_only_the_network_takes_gradients_and_the_state_holds_both():
    averaged = Averaged(scalar(1.0), 0.9).train()
    averaged(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
    assert [name for name, p in averaged.named_parameters() if p.requires_grad] == ["module.weight"]
    averaged.update()
    other = Averaged(scalar(0.0), 0.9)
    other.load_state_dict(averaged.state_dict())
    assert int(other.updates) == 1
    assert torch.equal(other.average.weight, averaged.average.weight)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_never_forgets_or_explodes_is_refused(one_line_error, decay):
    with one_line_error("decay", "allowed"):
        Averaged(scalar(0.0), decay)
