"""Models: small networks written to be read, wide residual nets, and those of torchvision and timm."""

from dropout_lab.models.small import CNN, MLP, ConvNet
from dropout_lab.models.transformer import Transformer

__all__ = ["CNN", "MLP", "ConvNet", "Transformer"]
