"""Modules: the LightningModules that are trained."""
