"""Parts that a configuration chooses by name: the registries of them, and the checks of their settings.

A part is a dataclass. Its fields are its keys in the configuration, with the limits that :func:`setting` gives them;
its methods are what it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar

from direct_deepen.errors import DeepenError, require


@dataclass(frozen=True)
class Limits:
    """What a setting may be: a number within limits, exclusive and inclusive ones, or one of ``choices``, or either.

    Numbers are finite unless ``infinite``; no comparison holds for NaN.
    """

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    infinite: bool = False

    def allow(self, value: Any) -> bool:
        """Return whether a value is allowed; None is not."""
        if value is None:
            return False
        if isinstance(value, str) or (self.choices and not self._bounds()):
            return value in self.choices
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
            and (self.infinite or abs(value) < float("inf"))
        )

    def __str__(self) -> str:
        bounds = self._bounds()
        if not bounds:
            return ", ".join(self.choices)
        told = " and ".join(bounds)
        if not (self.infinite or self.below is not None or self.most is not None):
            told = f"finite and {told}"
        return ", or ".join([told, *self.choices])

    def _bounds(self) -> list[str]:
        bounds = ((">", self.above), (">=", self.least), ("<", self.below), ("<=", self.most))
        return [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]


def setting(default: Any, **limits: Any) -> Any:
    """Return the field of a setting, with its default and the :class:`Limits` that :func:`check_settings` holds it to.

    A setting whose default is None may also be None.
    """
    return field(default=default, metadata={"limits": Limits(**limits)})


def check_settings(settings: Any, path: str) -> None:
    """Hold a dataclass of settings, and those in it, to their limits; a :class:`DeepenError` has the whole key.

    What one field says of another it checks itself, in a method ``check(path)``. ``path`` is its place in the
    configuration, such as ``model.inference``.
    """
    for entry in fields(settings):
        value, limits = getattr(settings, entry.name), entry.metadata.get("limits")
        if is_dataclass(value):
            check_settings(value, f"{path}.{entry.name}")
        elif limits is not None and not (value is None and entry.default is None):
            require(limits.allow(value), f"{path}.{entry.name} is {value!r}; allowed: {limits}")
    if hasattr(settings, "check"):
        settings.check(path)


def require_increasing(settings: Any, smallest: str, largest: str, path: str) -> None:
    """Raise :class:`DeepenError`, with the key of the larger, unless one field of settings is below another."""
    low, high = getattr(settings, smallest), getattr(settings, largest)
    require(low < high, f"{path}.{largest} is {high!r}; allowed: above {smallest} = {low!r}")


@dataclass
class SharedSettings:
    """What objective and inference both know."""

    noise_std: float = setting(0.01, above=0)
    """ε of the posterior ∝ exp(−2C/ε²), per real component, in scaled intensities: √2 times the measurement noise."""
    noise_start_std: float = setting(0.1, above=0)
    """Standard deviation per real component of the Gaussian noise that chains of start ``noise`` begin with, in
    training and inference alike: no more than score matching has shown the energy."""
    sense_regularization: float = setting(0.01, above=0)
    """λ of the SENSE solution that reconstructions start from."""


class Part:
    """Base of the parts. The engine sets ``shared``; used from Python, a part has the defaults."""

    shared = SharedSettings()
    needs: ClassVar[tuple[str, ...]] = ("forward of an image",)
    """Of these the prior has to have one: ``forward of an image``, ``forward of a level`` besides, or a
    method, ``value_and_grad`` of energies, ``at`` and ``at_noise`` of priors of all noise levels."""


class Registry[Kind: Part]:
    """Parts of one kind by name; those of other packages by import path, or entry point of ``direct_deepen.<kind>``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, type[Any]] = {}

    def __call__(self, name: str) -> Callable[[type[Kind]], type[Kind]]:
        """Return the decorator that registers a class as ``name``."""

        def register(part: type[Kind]) -> type[Kind]:
            self._parts[name] = part
            return part

        return register

    @property
    def names(self) -> Sequence[str]:
        """Names of this package's parts."""
        return tuple(self._parts)

    def find(self, name: str) -> type[Kind]:
        """Return the class of a name, an import path ``module:Class`` or an entry point, or raise DeepenError."""
        return self._parts.get(name) or find_outside(name, self.kind, f"model.{self.kind}.name", self.names)


def find_outside(name: str, group: str, key: str, names: Sequence[str] = ()) -> Any:
    """Return what ``module:Class``, or an entry point of ``direct_deepen.<group>``, names; besides ``names``."""
    allowed = ", ".join([*names, "an import path such as my_module:MyClass"])
    module, _, attribute = name.partition(":")
    try:
        if attribute:
            return getattr(import_module(module), attribute)
        (found,) = entry_points(group=f"direct_deepen.{group}", name=name)
        return found.load()
    except (ImportError, AttributeError, ValueError) as error:
        reason = f" ({error})" if attribute else ""
        raise DeepenError(f"{key} is {name!r}{reason}; allowed: {allowed}") from error
