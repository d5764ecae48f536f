"""Training: one run from top to bottom in job.py, and sweeps of them."""
