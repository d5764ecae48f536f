"""Dropout as pure PyTorch: strategies, keyed masks, placement, folding, ensembles."""

from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout, none

__all__ = ["Dropout", "mask_keys", "none"]
