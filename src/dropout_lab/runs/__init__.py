"""Run folders: what a run leaves, written and read here and nowhere else."""
