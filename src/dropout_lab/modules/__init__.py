"""Modules: the LightningModules that are trained, and the numbers that they measure."""
