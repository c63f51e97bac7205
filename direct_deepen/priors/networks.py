"""The convolutional network that the energies of the paper share."""

from itertools import pairwise

from torch import nn

from direct_deepen.errors import require, require_choice

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus, "silu": nn.SiLU, "elu": nn.ELU}
"""``relu`` is the paper's. The other three have a continuous derivative, which a Lipschitz ∇E needs."""


def convolutional_stack(
    *, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, activation: str
) -> nn.Sequential:
    """Return ``num_layers`` 3×3 convolutions with an activation between them (DEEPEN, section III-B).

    Parameters
    ----------
    in_channels, hidden_channels, out_channels
        Channels at the input, between layers, and at the output.
    num_layers
        Number of convolutions, at least two.
    activation
        One of :data:`ACTIVATIONS`.

    Raises
    ------
    DeepenError
        If a number is out of range or the activation is unknown.
    """
    require_choice("activation", activation, tuple(ACTIVATIONS))
    require(num_layers >= 2, f"num_layers is {num_layers!r}; allowed: >= 2")
    require(hidden_channels >= 1, f"hidden_channels is {hidden_channels!r}; allowed: >= 1")
    widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
    layers: list[nn.Module] = []
    for layer, (before, after) in enumerate(pairwise(widths)):
        if layer > 0:
            layers.append(ACTIVATIONS[activation]())
        layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
    return nn.Sequential(*layers)
