"""Ensembles of thinned networks: all of them, a sample of them, and how to run a sample fast."""
