"""What happens to files and inputs that are damaged: counts of outcomes, see `python -m benchmarks.faults`."""
