"""What votes on some rows say of all: one estimator a file, each checked by `python -m benchmarks.calibration`."""
