"""Volumes in fastMRI's HDF5 format: a writer, and a brain phantom that needs no downloaded data."""
