"""Dropout Lab: a Lightning + Hydra research template about dropout."""

__version__ = "0.1.0"
