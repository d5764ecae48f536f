"""Dropout as pure PyTorch: strategies, keyed masks, placement, folding, ensembles."""

from dropout_lab.dropout.check import Law, Scorecard, check
from dropout_lab.dropout.ensemble import exact_ensemble
from dropout_lab.dropout.fold import convert, fold
from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.match import match_inverted
from dropout_lab.dropout.placement import Installed, Placement, install
from dropout_lab.dropout.rates import check_rates, rates_of
from dropout_lab.dropout.sampling import monte_carlo
from dropout_lab.dropout.schedules import ScheduledRates

__all__ = [
    "Dropout",
    "Installed",
    "Law",
    "Placement",
    "ScheduledRates",
    "Scorecard",
    "check",
    "check_rates",
    "convert",
    "exact_ensemble",
    "fold",
    "install",
    "mask_keys",
    "match_inverted",
    "monte_carlo",
    "none",
    "rates_of",
]
