"""Modules: the LightningModules that are trained."""

from dropout_lab.modules.base import Module
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column

__all__ = ["Classifier", "Column", "Module"]
