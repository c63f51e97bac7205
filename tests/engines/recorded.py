"""Parts that tests choose by import path: they do what the package's do, and tell the tests of it before."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

from direct_deepen import inference, objectives

BEFORE_UPDATE: list[Callable] = []
"""Called with the :class:`~direct_deepen.objectives.Update`, before its loss is taken."""

BEFORE_BATCH: list[Callable] = []
"""Called with the problem, before it is reconstructed."""

BEFORE_SAMPLES: list[Callable] = []
"""Called with the problem of one image, before its posterior is sampled."""


@contextmanager
def listening(listeners, listener):
    """Call the listener within this context."""
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


@dataclass
class Contrastive(objectives.Contrastive):
    def loss(self, update):
        for listener in BEFORE_UPDATE:
            listener(update)
        return super().loss(update)


@dataclass
class Map(inference.Map):
    def solve(self, problem, prior):
        for listener in BEFORE_BATCH:
            listener(problem)
        return super().solve(problem, prior)


@dataclass
class Langevin(inference.Langevin):
    def prepare(self, problem, prior):
        for listener in BEFORE_BATCH:
            listener(problem)
        return super().prepare(problem, prior)

    def sample(self, problem, prior, generator, start=None):
        for listener in BEFORE_SAMPLES:
            listener(problem)
        return super().sample(problem, prior, generator, start)
