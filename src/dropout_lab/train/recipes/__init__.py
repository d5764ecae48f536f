"""Recipes: what published results need besides a network and dropout."""
