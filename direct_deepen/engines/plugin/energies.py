"""The energies, as ``model_name: deepen.energies.<Class>`` names them."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn

from direct_deepen import priors
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.errors import require


class DirectModel(nn.Module):
    """What all models share inside DIRECT."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move as any module does; a CUDA device that is not there is bad input. DIRECT's default is ``cuda``."""
        with exit_on_bad_input():
            for device in (torch.device(argument) for argument in args if isinstance(argument, str | torch.device)):
                found = torch.cuda.device_count() if device.type == "cuda" else 0
                require(
                    device.type != "cuda" or (device.index or 0) < found,
                    f"device is '{device}' but {f'only {found}' if found else 'no'} CUDA device is found; "
                    "allowed here: --device cpu",
                )
        return super().to(*args, **kwargs)


class ConvEnergy(DirectModel, priors.ConvEnergy):
    """:class:`direct_deepen.ConvEnergy`, built from a whole model section.

    DIRECT gives a model every key of its section that the constructor names; the rest of the section is the engine's.
    """

    def __init__(
        self,
        hidden_channels: int,
        num_layers: int,
        activation: str,
        head: str,
        image_size: Sequence[int] | None,
        top: str,
        top_width: float,
        **engine_settings: Any,
    ) -> None:
        with exit_on_bad_input():
            super().__init__(
                hidden_channels=hidden_channels,
                num_layers=num_layers,
                activation=activation,
                head=head,
                image_size=image_size,
                top=top,
                top_width=top_width,
            )


class QuadraticEnergy(DirectModel, priors.QuadraticEnergy):
    """:class:`direct_deepen.QuadraticEnergy`, built from a whole model section."""

    def __init__(
        self, hidden_channels: int, num_layers: int, activation: str, weight: float, **engine_settings: Any
    ) -> None:
        with exit_on_bad_input():
            super().__init__(
                hidden_channels=hidden_channels, num_layers=num_layers, activation=activation, weight=weight
            )
