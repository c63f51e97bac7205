"""The engine, in the one file DIRECT looks it up in."""

# ruff: noqa: F401 - what is imported is what DIRECT looks up.
from direct_deepen.engines.engine import DeepenEngine
