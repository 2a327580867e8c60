"""Programs compiled for accelerators that are not there: `python -m benchmarks.compiled`."""
