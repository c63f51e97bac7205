"""DEEPEN as DIRECT finds it: this folder is installed as ``direct.nn.deepen``."""
