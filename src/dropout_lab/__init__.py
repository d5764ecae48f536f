"""Dropout Lab: a Lightning + Hydra research template about dropout."""
