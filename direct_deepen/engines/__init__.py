"""Engines: from DIRECT's loops to the core and back. Together with ``data``, ``cli`` and ``plugin``, all that knows DIRECT."""
