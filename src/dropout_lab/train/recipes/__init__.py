"""Recipes of training: what published results need besides a network and dropout."""
