"""Commands of ``direct-deepen``: each is a module whose docstring is its help.

It has EXAMPLES for the end of the help, ``add_arguments``, and ``run``, which raises ``DeepenError`` for bad input.
DIRECT and matplotlib, which take seconds to load, are imported inside ``run``, so that help appears at once.
"""
