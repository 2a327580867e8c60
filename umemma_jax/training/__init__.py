"""Stages, steps and their state: from an experiment to trained parameters."""
