"""Meshes, processes and memory."""
