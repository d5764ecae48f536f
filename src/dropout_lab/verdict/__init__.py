"""Verdicts: what an experiment claims beforehand, what is measured, and whether it holds."""
