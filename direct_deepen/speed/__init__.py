"""Measuring how fast the inner loops are and how much memory they take, as ratios to what nobody can avoid.

Ratios are of medians of times that were taken in turns in one process, so that a machine that grows slower for a while
does so for both sides. Memory is the growth of the peak after model and data are there, in a fresh process each.
"""
