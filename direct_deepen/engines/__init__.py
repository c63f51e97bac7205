"""Engines: from DIRECT's loops to the core and back. With ``data``, ``cli`` and ``plugin``, all that knows DIRECT."""
