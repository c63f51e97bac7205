"""The Fourier transform that DIRECT's ``physics`` names, and its data rewritten for the one of this package."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from direct.data import transforms
from direct.utils import str_to_class

from direct_deepen.data.batch import to_complex
from direct_deepen.errors import require
from direct_deepen.physics.fourier import FourierConvention

STANDARD = FourierConvention()


def convention_of(forward_operator: str, backward_operator: str) -> FourierConvention:
    """Return what ``physics`` says of centring and normalisation; a :class:`DeepenError` where a pair is no inverse."""
    found = [_arguments(text, like) for text, like in ((forward_operator, "fft2"), (backward_operator, "ifft2"))]
    require(
        found[0] is not None and found[0] == found[1],
        f"physics.forward_operator is {forward_operator!r} and physics.backward_operator {backward_operator!r}; "
        "allowed: 'fft2' and 'ifft2', both with the same centered and normalized, as in 'fft2(centered=False)' and "
        "'ifft2(centered=False)'",
    )
    assert found[0] is not None
    return found[0]


def _arguments(text: str, function: str) -> FourierConvention | None:
    try:
        operator = str_to_class("direct.data.transforms", text)
    except (AttributeError, SyntaxError, TypeError, ValueError, IndexError):
        return None
    if not isinstance(operator, partial):
        operator = partial(operator)
    # DIRECT gives the axes itself.
    known = operator.func is getattr(transforms, function) and not operator.args
    for name, value in operator.keywords.items():
        known = known and name in ("centered", "normalized") and isinstance(value, bool)
    return FourierConvention(**operator.keywords) if known else None


def in_standard_convention(data: dict[str, Any], convention: FourierConvention) -> dict[str, Any]:
    """Return a sample or a batch of DIRECT with its k-space and coil maps rewritten for the centred orthonormal FFT."""
    if convention == STANDARD:
        return data
    rewrite: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "masked_kspace": convention.standard_kspace,
        "kspace": convention.standard_kspace,
        "sensitivity_map": convention.standard_maps,
    }
    return data | {
        name: torch.view_as_real(function(to_complex(data[name]))) for name, function in rewrite.items() if name in data
    }
