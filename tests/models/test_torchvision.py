"""torchvision's models with a head and a stem that fit the data."""

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
        (((1, 8, 8), 10, "resnet18"), r"takes 3 channels, the data has 1; data\.channels=3"),
        ((SHAPE, 10, "vgg16", None, "cifar"), r"model\.stem=cifar: is for residual nets"),
        ((SHAPE, 10, "resnet18", None, "imagenet"), r"model\.stem=imagenet: must be cifar, or null"),
        ((SHAPE, 10, "resnet18", "nowhere.pt"), r"model\.weights=nowhere\.pt: no such file"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        torchvision_model(*arguments)


def test_weights_of_another_model_are_refused(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(torchvision.models.get_model("resnet34", weights=None).state_dict(), file)
    with pytest.raises(ValueError, match="not the weights of resnet18"):
        torchvision_model(SHAPE, 10, "resnet18", str(file))
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds no state_dict"):
        torchvision_model(SHAPE, 10, "resnet18", str(file))


@pytest.mark.slow
def test_weights_of_googlenet_see_what_they_were_made_for(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(torchvision.models.googlenet(weights=None, init_weights=False).state_dict(), file)
    loaded, fresh = (torchvision_model(SHAPE, 10, "googlenet", weights) for weights in (str(file), None))
    assert (loaded.transform_input, fresh.transform_input) == (True, False)
    assert torchvision_model(SHAPE, None, "googlenet", str(file)).fc.out_features == 1000
