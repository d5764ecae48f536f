"""A small data set of images that know their number."""

import torch

from dropout_lab.data import InMemoryData, Samples


class Numbered(InMemoryData):
    """A data set of 200 images; the one pixel that is not noise is the number of the sample."""

    native_shape = (1, 4, 6)
    num_classes = 4
    size = 200

    def load(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.size, *self.native_shape, generator=generator) * 3 + 5
        images[:, 0, 0, 0] = torch.arange(self.size)
        shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
        classes = torch.arange(self.num_classes).repeat_interleave((shares * self.size).round().long())
        return Samples(images, classes)


def made(kind=Numbered, setup=True, **options):
    data = kind(**{"batch_size": 8, "seed": 0, **options})
    if setup:
        data.setup()
    return data


def numbers(samples):
    return samples.inputs[:, 0, 0, 0].long().tolist()
