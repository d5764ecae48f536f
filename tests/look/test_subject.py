"""Laws of what is looked at: the network with its own weights, the image as that was trained to see it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tiny_sets import write_folder
from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.look.subject import from_run, from_torchvision, open_image
from dropout_lab.look.views import look_at
from dropout_lab.look.words import RANDOM, table


def test_a_photo_is_read_upright_and_transparency_is_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (40, 20), "red").save(tmp_path / "photo.jpg", exif=exif)
    Image.new("RGBA", (5, 5), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((5, 5), 65535, dtype="uint16")).save(tmp_path / "deep.png")
    Image.new("L", (5, 5), 7).save(tmp_path / "grey.png")
    assert open_image(str(tmp_path / "photo.jpg")).size == (20, 40)
    assert open_image(str(tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(str(tmp_path / "deep.png")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(str(tmp_path / "grey.png")).getpixel((0, 0)) == (7, 7, 7)
    assert open_image("").mode == "RGB"


def test_weights_of_a_file_are_used_and_bring_the_names_of_imagenet(weights):
    seen = from_torchvision("squeezenet1_1", weights, "", 0)
    assert seen.trained
    assert seen.classes[0] == "tench"
    loaded = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, loaded[key]) for key, value in seen.net.state_dict().items())
    assert RANDOM not in table(look_at(seen, 0.5))


def test_random_weights_are_called_so_and_have_no_names():
    seen = from_torchvision("squeezenet1_1", "", "", 0)
    assert not seen.trained
    assert seen.classes[3] == "class 3"
    assert RANDOM in table(look_at(seen, 0.5))


def test_the_network_sees_the_image_as_its_weights_were_trained(tmp_path):
    seen = from_torchvision("squeezenet1_1", "", "", 0)
    expected = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()(open_image(""))
    torch.testing.assert_close(seen.x[0], expected)
    back = torchvision.transforms.functional.to_tensor(
        torchvision.transforms.functional.center_crop(
            torchvision.transforms.functional.resize(open_image(""), 256), [224, 224]
        )
    )
    torch.testing.assert_close(torch.from_numpy(seen.picture).permute(2, 0, 1), back, atol=1e-5, rtol=0)


def test_a_head_of_another_size_is_taken_from_the_file(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(num_classes=12).state_dict(), tmp_path / "w.pth")
    seen = from_torchvision("squeezenet1_1", str(tmp_path / "w.pth"), "", 0)
    assert list(seen.classes) == [f"class {i}" for i in range(12)]


def test_a_run_looks_at_its_first_test_image_with_its_own_dropout(run):
    seen = from_run(run, "best", "")
    look = look_at(seen, seen.p)
    assert seen.x.shape == (1, 1, 8, 8)
    assert seen.p == 0.3
    assert list(seen.classes) == [str(digit) for digit in range(10)]
    assert re.fullmatch(r"test image 0 \(class \d\)", seen.image)
    assert look.dropped == list(look.layers) == ["03_blocks_0_dropout", "07_blocks_1_dropout", "11_dropout"]
    assert RANDOM not in table(look)


def test_a_run_looks_at_a_photo_as_if_it_were_of_its_data(run, tmp_path):
    grey = np.arange(64, dtype="uint8").reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "x.png")
    seen = from_run(run, "best", str(tmp_path / "x.png"))
    from dropout_lab.data import Digits

    data = Digits(batch_size=64, seed=0)
    data.setup()
    torch.testing.assert_close(seen.x, data.prepare(torch.from_numpy(grey / 255).float().view(1, 1, 8, 8)))


def test_a_run_sees_the_file_of_a_test_image_as_it_sees_that_test_image(tmp_path, monkeypatch):
    from dropout_lab.data import ImageFolder
    from dropout_lab.runs import network

    write_folder(tmp_path, {part: {"a": 6, "b": 6} for part in ("train", "test")}, size=(20, 31))
    exif, path = Image.Exif(), tmp_path / "test" / "a" / "001.png"
    exif[0x0112] = 8
    Image.fromarray(np.arange(16 * 12, dtype="uint16").reshape(16, 12) * 300).save(path, exif=exif)
    data = ImageFolder(root=str(tmp_path), image_size=9, batch_size=4, seed=0, val_fraction=0.4)
    data.setup()
    config = SimpleNamespace(dropout=SimpleNamespace(p=0.5), run=SimpleNamespace(name="run"))
    run = SimpleNamespace(data=data, net=nn.Identity(), config=config)
    monkeypatch.setattr(network, "restore", lambda *_: run)
    for number in range(3):
        by_file = from_run(tmp_path, "best", str(path.with_name(f"{number:03}.png")))
        torch.testing.assert_close(by_file.x, from_run(tmp_path, "best", str(number)).x, atol=1e-5, rtol=0)


def test_a_file_that_is_no_image_is_told_by_the_key(tmp_path):
    Image.new("F", (5, 5)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=rf"^image={tmp_path}/x.tif cannot be read as an image: its pixels are of"):
        open_image(str(tmp_path / "x.tif"))
