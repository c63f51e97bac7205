"""How good reconstructions and posteriors are: metrics, classical methods, benchmark, calibration, landscape."""
