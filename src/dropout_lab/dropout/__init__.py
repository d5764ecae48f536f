"""Dropout as pure PyTorch: layers, masks, placement, folding, ensembles."""
