"""Folding: taking dropout out of trained weights, changing its scaling, and training matched to another one."""
