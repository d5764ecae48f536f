"""Diff: where two runs part, and why."""
