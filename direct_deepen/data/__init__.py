"""Data of reconstructions: phantoms, and DIRECT's batches, masks and coil maps as problems."""
