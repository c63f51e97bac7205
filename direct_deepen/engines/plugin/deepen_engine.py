"""The engines, in the one file DIRECT looks them up in."""

from direct_deepen.engines.deepen_engine import DeepenEngine
from direct_deepen.engines.diffusion_engines import ALPSEngine, DPSEngine
from direct_deepen.engines.system_engines import ELDEREngine, MoLEngine, MuSEEngine, PnPISTAEngine

__all__ = ["ALPSEngine", "DPSEngine", "DeepenEngine", "ELDEREngine", "MoLEngine", "MuSEEngine", "PnPISTAEngine"]
