"""The engine, in the one file DIRECT looks it up in."""

from direct_deepen.engines.engine import DeepenEngine

__all__ = ["DeepenEngine"]
