"""Looks: a network looking at one image with dropout off, element-wise, spatial and unscaled."""
