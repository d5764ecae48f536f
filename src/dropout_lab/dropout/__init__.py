"""Dropout as pure PyTorch: strategies, keyed masks, placement, folding, ensembles."""

from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.match import match_inverted
from dropout_lab.dropout.placement import Installed, Placement, install

__all__ = ["Dropout", "Installed", "Placement", "install", "mask_keys", "match_inverted", "none"]
