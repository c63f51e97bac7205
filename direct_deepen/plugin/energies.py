"""The energies, as ``model_name: deepen.energies.<Class>`` names them."""

from collections.abc import Sequence
from typing import Any

from direct_deepen import priors
from direct_deepen.engines.reporting import exit_on_bad_input


class ConvEnergy(priors.ConvEnergy):
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


class QuadraticEnergy(priors.QuadraticEnergy):
    """:class:`direct_deepen.QuadraticEnergy`, built from a whole model section."""

    def __init__(self, hidden_channels: int, num_layers: int, activation: str, **engine_settings: Any) -> None:
        with exit_on_bad_input():
            super().__init__(hidden_channels=hidden_channels, num_layers=num_layers, activation=activation)
