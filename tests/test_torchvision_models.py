"""Every classification model of torchvision takes dropout: keys stay, and one training step runs; none is left out.

Models up to `LARGE` parameters really run; larger ones are checked on the meta device, where shapes are computed and
numbers are not. What needs care, and why:

    those of `WITHOUT`          have no dropout layer: it goes before the classifier
    regnet_*                    don't build on the meta device by themselves, because the widths of their stages are
                                numbers read from a tensor: these are computed on the CPU
    googlenet, inception_v3     functional ReLU: no site for placement.where=activations
    inception_v3                needs 75 x 75 pixels without its auxiliary head, 299 x 299 with it
    maxvit_t                    input size is part of the model, a multiple of 224 (windows of 7, 32 times reduced)
    vit_*                       input size is part of the model: built for 32 x 32 pixels (28 x 28 with patches of 14)
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from dropout_lab.dropout import Placement, install
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.dropout.layer import Dropout

NAMES = models.list_models(module=models)
LARGE = 31_000_000  # for 1000 classes
# The 37 models without a dropout layer.
WITHOUT = ("convnext", "densenet", "regnet", "resnet", "resnext", "shufflenet", "wide_resnet")
FAMILIES = (  # the smallest of each
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn"),
    *("vit_b_16", "wide_resnet50_2"),
)
FUNCTIONAL_RELU = {"googlenet", "inception_v3"}
CLASSES = 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dropout_installs_and_trains_in(name: str) -> None:
    meta = models.get_model_weights(name).DEFAULT.meta["num_params"] > LARGE
    with torch.device("meta" if meta else "cpu"), widths_on_the_cpu():
        model = build(name)
    keys = list(model.state_dict())
    names = [call.name for call in calls(model)]
    has_dropout = any(isinstance(module, nn.Dropout) for module in model.modules())
    assert has_dropout != name.startswith(WITHOUT)

    installed = install(model, Dropout, Placement("default", p=0.2))

    assert list(model.state_dict()) == keys
    assert [call.name for call in calls(model)] == names
    assert {layer.name for layer in installed} <= set(names)
    assert has_dropout or len(installed) == 1

    torch.manual_seed(0)
    image = torch.randn(2, 3, *[size(name)] * 2, device="meta" if meta else "cpu")
    output = model.train()(image)
    logits = output[0] if isinstance(output, tuple) else output
    assert logits.shape == (2, CLASSES)
    logits.square().sum().backward()
    gradient = next(model.parameters()).grad
    assert gradient is not None
    assert meta or gradient.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_channels_go_after_every_convolution_and_after_activations_where_there_are_maps(name: str) -> None:
    with torch.device("meta"), widths_on_the_cpu():
        model = build(name)
    spatial = partial(Dropout, mask="channel")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert len(install(model, spatial, Placement("convolutions"))) == convolutions
    if name in FUNCTIONAL_RELU:
        with pytest.raises(ValueError, match="no site for dropout at placement\\.where=activations"):
            install(model, spatial, Placement("activations"))
        return
    install(model, partial(spatial, elsewhere="element"), Placement("activations"))
    masks = {layer.mask for layer in model.modules() if isinstance(layer, Dropout)}
    if name.startswith(("vit", "swin", "convnext")):  # tokens and NHWC
        assert masks == {"element"}
    else:
        assert "channel" in masks


def test_there_are_80_of_them_and_37_have_no_dropout_layer() -> None:
    """By their names; that these are right is tested above."""
    assert (len(NAMES), sum(name.startswith(WITHOUT) for name in NAMES)) == (80, 37)


def build(name: str) -> nn.Module:
    options: dict[str, Any] = {"num_classes": CLASSES}
    if name.startswith("vit"):
        options["image_size"] = size(name)
    if name.startswith(("vgg", "googlenet", "inception")):
        options["init_weights"] = False  # minutes of truncated normal draws otherwise
    if name == "inception_v3":
        options["aux_logits"] = False
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def size(name: str) -> int:
    return {"alexnet": 63, "inception_v3": 75, "maxvit_t": 224, "vit_h_14": 28}.get(name, 32)


@contextlib.contextmanager
def widths_on_the_cpu() -> Iterator[None]:
    """Let regnets be built on the meta device: the widths of their stages are numbers taken from a tensor."""
    params = models.regnet.BlockParams
    original = params.from_init_params

    def on_the_cpu(**options: Any) -> Any:
        with torch.device("cpu"):
            return original(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(params, "from_init_params", on_the_cpu)
        yield
