"""Checkpoints of other libraries: files, conversion, cards."""
