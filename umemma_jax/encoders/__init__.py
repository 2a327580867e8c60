"""Uni-modal encoders: one module per family, each exporting `Model`."""
