"""torchvision's models with a head and a stem that fit the data."""

import os

import pytest
import torch
import torchvision

from dropout_lab.models.torchvision import torchvision_model, wants

SHAPE = (3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "googlenet", "vit_b_32"])
def test_the_model_has_as_many_outputs_as_the_data_has_classes(name):
    size = 64
    model = torchvision_model((3, size, size), 7, name).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, size, size)).shape == (1, 7)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_weights_of_other_classes_are_kept_but_for_the_head(name, tmp_path):
    original = torchvision.models.get_model(name, weights=None, num_classes=11)
    file = tmp_path / "weights.pt"
    torch.save(original.state_dict(), file)
    same = torchvision_model(SHAPE, 11, name, str(file)).state_dict()
    other = torchvision_model(SHAPE, 5, name, str(file)).state_dict()
    differing = []
    for key, value in original.state_dict().items():
        assert torch.equal(same[key], value)
        if other[key].shape != value.shape or not torch.equal(other[key], value):
            differing.append(key)
    assert len(differing) == 2  # weight and bias of the head
    assert all(len(other[key]) == 5 for key in differing)


def test_the_cifar_stem_keeps_the_resolution():
    model = torchvision_model(SHAPE, 10, "resnet18", stem="cifar")
    seen = []
    model.layer1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    model(torch.randn(2, *SHAPE))
    assert seen == [(2, 64, 32, 32)]


@pytest.mark.slow
def test_a_vision_transformer_takes_images_of_any_size_that_its_patches_divide():
    model = torchvision_model((3, 64, 64), 10, "vit_b_32").eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def test_a_model_wants_the_size_it_was_published_with():
    assert wants("resnet18") == (3, 224)
    assert wants("inception_v3") == (3, 299)
    assert wants("resnet18", stem="cifar", weights=None) == (3, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SHAPE, 10, "resnet81"), r"model\.name=resnet81: no classification model .* did you mean 'resnet18'"),
        ((SHAPE, 10, "fcn_resnet50"), "no classification model"),
        ((SHAPE, 10, 3), r"^model\.name=3: no classification model"),
        (((1, 8, 8), 10, "resnet18"), r"takes 3 channels, the data has 1; data\.channels=3"),
        ((SHAPE, 10, "squeezenet1_1", None, "cifar"), r"model\.stem=cifar: is for residual nets"),
        ((SHAPE, 10, "resnet18", None, "imagenet"), r"model\.stem=imagenet: must be cifar, or null"),
        ((SHAPE, 10, "resnet18", "nowhere.pt"), r"model\.weights=nowhere\.pt: no such file"),
        ((SHAPE, 10, "resnet18", "."), r"model\.weights=\.: that is a folder"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        torchvision_model(*arguments)


def test_options_are_those_of_the_model_s_class():
    model = torchvision_model(SHAPE, 10, "mobilenet_v3_small", dropout=0.4)
    assert model.classifier[2].p == 0.4
    depth = torchvision_model(SHAPE, 10, "efficientnet_b0", stochastic_depth_prob=0.0)
    assert {layer.p for layer in depth.modules() if isinstance(layer, torchvision.ops.StochasticDepth)} == {0}


def test_options_hold_where_the_number_of_classes_is_that_of_the_weights(squeezed, saved):
    model = torchvision_model(SHAPE, None, "squeezenet1_1", saved(squeezed), dropout=0.1)
    assert (len(model.classifier[1].bias), model.classifier[0].p) == (11, 0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "efficientnet_b0",
            {"stochastic_depth_prb": 0},
            "_prb: efficientnet_b0 takes no such key; did you mean 'stoch",
        ),
        (
            "mobilenet_v3_small",
            {"reduced_tail": True},
            "tail: mobilenet_v3_small takes no such key; allowed: b",
        ),
        ("resnet18", {"progress": True}, "model.progress: resnet18 takes no such key; allowed: zero_init_residual, "),
        ("efficientnet_b0", {"inverted_residual_setting": []}, "setting: the library settles that for efficientnet_b0"),
        ("swin_t", {"stochastic_depth_prob": 0}, "prob: the library settles that for swin_t; allowed: mlp_ratio, dro"),
        ("resnext50_32x4d", {"groups": 2}, "model.groups: the library settles that for resnext50_32x4d; allowed: zero"),
        ("squeezenet1_1", {"dropout": 2}, "model.dropout=2: squeezenet1_1 can't be made with that: ValueError: dropo"),
    ],
)
def test_options_that_a_model_does_not_take_are_one_line(name, options, message):
    with pytest.raises(ValueError, match=r"^model\.") as told:
        torchvision_model(SHAPE, 10, name, **options)
    assert message in str(told.value)


@pytest.fixture(scope="module")
def squeezed():
    """Weights of a squeezenet of 11 classes, its head in the middle of the names."""
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=11).state_dict()
    return dict(sorted(state.items()))


@pytest.fixture
def saved(tmp_path):
    """Saves its argument and returns the file's name."""

    def save(content, name="weights.pt"):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("classes", [None, 11, 5])
def test_the_order_of_names_in_a_file_of_weights_does_not_matter(squeezed, saved, classes):
    assert next(reversed(squeezed)).startswith("features.")
    loaded = torchvision_model(SHAPE, classes, "squeezenet1_1", saved(squeezed)).state_dict()
    different = {key for key, value in squeezed.items() if not torch.equal(loaded[key], value)}
    assert different == ({"classifier.1.weight", "classifier.1.bias"} if classes == 5 else set())
    assert len(loaded["classifier.1.bias"]) == (classes or 11)


@pytest.mark.parametrize(
    "stored",
    [lambda w: w.half(), lambda w: w.transpose(0, -1).contiguous().transpose(0, -1) if w.ndim else w],
    ids=["half precision", "not contiguous"],
)
def test_weights_may_be_stored_in_any_precision_and_layout(squeezed, saved, stored):
    file = saved({key: stored(value) for key, value in squeezed.items()})
    loaded = torchvision_model(SHAPE, 11, "squeezenet1_1", file).state_dict()
    for key, value in squeezed.items():
        torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-7)
        assert loaded[key].dtype == torch.float32


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_prefix(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (without("classifier.1.weight"), r"not the weights of squeezenet1_1: it lacks classifier\.1\.weight$"),
        (lambda s: s | {"more": torch.ones(1, 1)}, r"squeezenet1_1: it has, and the model lacks, more$"),
        (
            lambda s: s | {"features.0.bias": torch.ones(9)},
            r"features\.0\.bias is \(9,\) in the file, \(64,\) in the m",
        ),
        (lambda s: s | {"classifier.1.bias": torch.ones(9)}, r"classifier\.1\.weight is \(11, 512, 1, 1\) in the file"),
        pytest.param(
            lambda s: s | {"features.0.bias": torch.ones(64).to_sparse()},
            r"not the weights of squeezenet1_1: .*features",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse tensor"),
        ),
        (with_prefix("module."), r"its names begin with 'module\.'; save them without"),
        (with_prefix("module._orig_mod."), r"its names begin with 'module\._orig_mod\.'; save them without"),
        (
            lambda s: {"epoch": 3, "optimizer": {}, "model": s},
            r"holds no state_dict .*; it holds one as 'model': torch\.s",
        ),
        (lambda s: {"state_dict": s}, r"it holds one as 'state_dict'"),
        (lambda s: {}, "holds no weight of a layer"),
        (lambda s: list(s.values()), r"holds no state_dict \(names and tensors\)$"),
        (lambda s: dict(enumerate(s.values())), r"holds no state_dict \(names and tensors\)$"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_what_is_wrong_with_them(squeezed, saved, changed, message):
    with pytest.raises(ValueError, match=message) as refused:
        torchvision_model(SHAPE, 5, "squeezenet1_1", saved(changed(squeezed)))
    assert "\n" not in str(refused.value)


def test_weights_of_another_model_are_refused_by_the_first_names_that_differ(squeezed, saved):
    file = saved(torchvision.models.get_model("resnet34", weights=None).state_dict())
    with pytest.raises(ValueError, match=r"weights of resnet18: it has, and .* lacks, layer1\.2\.conv1\.weight, "):
        torchvision_model(SHAPE, 10, "resnet18", file)
    with pytest.raises(ValueError, match=r"it lacks conv1\.weight, .* and 99 more; it has, and .* and 49 more$"):
        torchvision_model(SHAPE, 10, "resnet18", saved(squeezed))


def test_a_layer_inside_that_differs_is_not_taken_for_the_head(squeezed, saved):
    wider = squeezed | {"features.0.weight": torch.ones(32, 3, 3, 3), "features.0.bias": torch.ones(32)}
    for classes in (11, 64):  # alone, and beside a head that differs, too
        with pytest.raises(ValueError, match=r"features\.0\.weight is \(32, 3, 3, 3\) in the file, \(64, 3, 3, 3\)"):
            torchvision_model(SHAPE, classes, "squeezenet1_1", saved(wider))


@pytest.mark.parametrize("cut", [0, 1, 10, 1000, 100_000])
def test_a_broken_file_of_weights_is_refused_in_one_line(squeezed, saved, cut):
    file = saved(squeezed)
    os.truncate(file, cut)
    with pytest.raises(ValueError, match=r"cannot be read as a file of weights \(it may be .+\)$") as refused:
        torchvision_model(SHAPE, 10, "squeezenet1_1", file)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_weights_of_googlenet_see_what_they_were_made_for(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(torchvision.models.googlenet(weights=None, init_weights=False).state_dict(), file)
    loaded, fresh = (torchvision_model(SHAPE, 10, "googlenet", weights) for weights in (str(file), None))
    assert (loaded.transform_input, fresh.transform_input) == (True, False)
    assert torchvision_model(SHAPE, None, "googlenet", str(file)).fc.out_features == 1000
