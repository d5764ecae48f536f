"""Models: small networks written to be read, wide residual nets, and those of torchvision."""

from dropout_lab.models.small import CNN, MLP, ConvNet

__all__ = ["CNN", "MLP", "ConvNet"]
