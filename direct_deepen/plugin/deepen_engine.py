"""The engines, in the one file DIRECT looks them up in."""

from direct_deepen.engines.deepen_engine import DeepenEngine

__all__ = ["DeepenEngine"]
