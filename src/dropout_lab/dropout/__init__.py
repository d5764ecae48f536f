"""Dropout as pure PyTorch: strategies, keyed masks, placement, folding, ensembles."""

from dropout_lab.dropout.ensembles.exact import exact_ensemble
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.folding.fold import convert, fold, transfer
from dropout_lab.dropout.folding.match import match_inverted
from dropout_lab.dropout.keys import MASKS_VERSION, mask_keys
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.placement.install import Installed, Part, install, install_all
from dropout_lab.dropout.placement.placement import Placement
from dropout_lab.dropout.schedules import ScheduledRates, rates_of, require_same_rates
from dropout_lab.dropout.scorecard import Law, Scorecard, check

__all__ = [
    "MASKS_VERSION",
    "Dropout",
    "Installed",
    "Law",
    "Part",
    "Placement",
    "ScheduledRates",
    "Scorecard",
    "check",
    "convert",
    "exact_ensemble",
    "fold",
    "install",
    "install_all",
    "mask_keys",
    "match_inverted",
    "monte_carlo",
    "none",
    "rates_of",
    "require_same_rates",
    "transfer",
]
