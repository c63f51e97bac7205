"""How fast the inner loops are and how much memory they take, as ratios to what nobody can avoid; not installed.

``python -m benchmarks.speed`` in the top folder of a clone measures; ``projects/speed`` has what was found.
"""
