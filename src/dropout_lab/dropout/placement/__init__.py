"""Placement: where dropout goes in a model, and which noise is there that is not ours."""
