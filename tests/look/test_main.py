"""Laws of `look`: what differs between the conditions is dropout alone; the picture says what it shows."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf, open_dict
from PIL import Image
from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.dropout import Dropout
from dropout_lab.jobs.plan import plan
from dropout_lab.look.__main__ import main
from dropout_lab.look.picture import draw
from dropout_lab.look.subject import Subject, from_run, from_torchvision, open_image
from dropout_lab.look.views import CONDITIONS, OFF, look_at
from dropout_lab.look.words import RANDOM, record, table
from dropout_lab.report.look_section import look_section


class Net(nn.Module):
    """Two convolutions with one ReLU, in place and called twice; a hidden layer with dropout."""

    def __init__(self, dropout):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 40, 3, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)
        self.hidden, self.drop, self.head = nn.Linear(160, 30), dropout, nn.Linear(30, 7)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(self.drop(self.hidden(self.pool(x).flatten(1))))


def subject(net=None):
    torch.manual_seed(0)
    net = (net or Net(nn.Dropout(0.3))).eval()
    x = torch.randn(1, 1, 8, 8)
    return Subject(net, x, np.zeros((8, 8)), [f"c{i}" for i in range(7)], "net", "noise", False, 0.5)


FIRST, SECOND, VECTOR = "01_relu", "03_relu_call2", "06_drop"


def outputs(look, layer):
    return [look.views[condition].outputs[layer] for condition in CONDITIONS]


def test_dropout_off_is_the_network_itself_and_it_is_left_as_it_was():
    seen = subject()
    before, state = seen.net(seen.x), torch.get_rng_state()
    look = look_at(seen, 0.5)
    torch.testing.assert_close(look.views[OFF].probabilities, before[0].softmax(0), rtol=0, atol=0)
    torch.testing.assert_close(seen.net(seen.x), before, rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks or module.training for module in seen.net.modules())


def test_element_wise_and_unscaled_have_the_same_masks_and_differ_in_scaling():
    plain, element, _, unscaled = outputs(look_at(subject(), 0.75), FIRST)
    kept = element != 0
    assert 0.15 < kept[plain != 0].float().mean() < 0.35
    torch.testing.assert_close(element, plain * kept / 0.25)
    torch.testing.assert_close(unscaled, plain * kept)


def test_spatial_drops_whole_maps_and_rescales_the_others():
    plain, _, spatial, _ = outputs(look_at(subject(), 0.5), FIRST)
    dropped = (spatial == 0).all(2).all(1)
    assert 0.2 < dropped.float().mean() < 0.8
    torch.testing.assert_close(spatial[~dropped], plain[~dropped] * 2)


def test_spatial_drops_single_units_where_there_are_no_maps_and_says_so():
    look = look_at(subject(), 0.5, where="existing", patterns=[VECTOR])
    plain, element, spatial, _ = outputs(look, VECTOR)
    assert plain.shape == (30,)
    torch.testing.assert_close(spatial, element)
    assert f"No maps to drop in {VECTOR}" in table(look)


def test_later_layers_see_what_dropout_left_of_the_earlier_ones():
    seen = subject()
    look = look_at(seen, 0.5, ["01_relu"], where="layers")  # both calls of the module
    _, first, _, _ = outputs(look, FIRST)
    plain, second, _, _ = outputs(look, SECOND)
    by_hand = seen.net.second(first[None])[0].relu()
    torch.testing.assert_close(second[second != 0], 2 * by_hand[second != 0])
    assert look.dropped == [FIRST, SECOND]
    assert not torch.equal(plain, by_hand)


def test_what_follows_in_place_does_not_change_what_is_shown():
    plain, *_ = outputs(look_at(subject(), 0.5, ["00_first"], where="existing"), "00_first")
    assert plain.min() < 0


@pytest.mark.parametrize("where", ["layers", "existing", "activations", "convolutions"])
def test_dropout_acts_where_it_is_told(where):
    look = look_at(subject(), 0.5, ["00_first"], where=where)
    expected = {
        "layers": ["00_first"],
        "existing": [VECTOR],
        "activations": [FIRST, SECOND],
        "convolutions": ["00_first", "02_second"],
    }
    assert look.dropped == expected[where]
    plain, element, *_ = outputs(look, "00_first")
    assert (not torch.equal(plain, element)) == (where in ("layers", "convolutions"))


def test_a_place_that_the_network_lacks_is_refused():
    with pytest.raises(UserError, match="where=existing: the network has no such layer"):
        look_at(subject(Net(nn.Identity())), 0.5, where="existing")


def test_on_top_of_classic_dropout_element_wise_is_what_training_did():
    """Classic evaluates to x * q, so inverted dropout after it is x * m."""
    seen = subject(Net(Dropout(0.75, scaling="classic")))
    given = []
    handle = seen.net.drop.register_forward_pre_hook(lambda module, args: given.append(args[0][0]))
    plain, element, *_ = outputs(look_at(seen, 0.75, [VECTOR], where="existing"), VECTOR)
    handle.remove()
    torch.testing.assert_close(plain, given[0] * 0.25)
    torch.testing.assert_close(element, given[0] * (element != 0))


def test_another_seed_is_another_draw_and_the_same_seed_the_same():
    a, b, c = (look_at(subject(), 0.5, seed=seed).views["element-wise"].outputs[FIRST] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_by_default_the_last_activation_at_each_size_of_map_is_shown():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=7).eval()
    x = torch.randn(1, 3, 128, 128)
    found = look_at(Subject(net, x, np.zeros((8, 8)), range(7), "resnet18", "noise", False, 0.5), 0.5)
    # 64 px: the stem; 32, 16, 8 and 4 px: its four stages; four are shown
    assert list(found.layers) == [
        "02_relu",
        "15_layer1_1_relu_call2",
        "43_layer3_1_relu_call2",
        "57_layer4_1_relu_call2",
    ]
    assert set(found.layers.values()) == {"ReLU"}


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, axes.yaxis.label]]


def test_the_picture_says_what_it_shows():
    look = look_at(subject(), 0.5)
    said = texts(draw(look))
    for expected in ("net looking at noise", RANDOM, *CONDITIONS, "16 of 24 maps of 8×8", "16 of 40 maps of 8×8"):
        assert any(expected in text for text in said), expected
    of_trained = Subject(**{**vars(look.subject), "trained": True})
    said = texts(draw(look_at(of_trained, 0.5)))
    assert not any("RANDOM" in text for text in said)


def test_all_maps_of_a_row_share_one_colour_scale_that_begins_at_zero():
    figure = draw(look_at(subject(), 0.5))
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.title.get_text()]
    rows = [limits[:4], limits[4:]]
    assert all(len(set(row)) == 1 and row[0][0] == 0 < row[0][1] for row in rows)


def test_signed_maps_have_zero_in_the_middle_of_their_colours():
    figure = draw(look_at(subject(), 0.5, ["00_first"]))
    (low, high), *_ = [axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.title.get_text()]
    assert low == -high


@pytest.mark.parametrize("shape", [(5,), (17, 6), (16, 6), (18, 6), (3, 3, 20), (2, 1, 1)])
@pytest.mark.slow
def test_outputs_of_any_shape_can_be_drawn(shape):
    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.head = nn.GELU(), nn.Linear(torch.Size(shape).numel(), 7)

        def forward(self, x):
            return self.head(self.act(x).flatten(1))

    seen = subject(Shaped())
    draw(look_at(Subject(**{**vars(seen), "x": torch.randn(1, *shape)}), 0.5))


# Images.


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


# Networks.


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """File of weights of squeezenet1_1, the smallest model there is."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.manual_seed(5)
    # as torchvision's older files are written
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path, _use_new_zipfile_serialization=False)
    return str(path)


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run that has hardly begun."""
    from dropout_lab.jobs.build import build_data, build_network

    folder = tmp_path_factory.mktemp("run")
    config = plan(["dropout=spatial", "dropout.p=0.3", f"hydra.run.dir={folder}"]).base
    with open_dict(config):
        del config["hydra"]
    config.run = {"dir": str(folder), "root": str(folder), "name": "spatial p=0.3", "group": "spatial", "id": "0"}
    torch.manual_seed(1)
    net, _ = build_network(config, build_data(config))
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}, folder / "checkpoints/best.ckpt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    return folder


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


# The command.


def said_wrong(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "either run=DIR or model.name=NAME"),
        (["run=x", "model.name=vgg16"], "either run=DIR or model.name=NAME"),
        (["vgg16"], "not key=value"),
        (["model.nam=vgg16"], "did you mean 'model.name'"),
        (["model.name=vgg166"], "did you mean 'vgg16'"),
        (["model.name=alexnet", "p=1"], "0 <= p < 1"),
        (["model.name=alexnet", "p=nan"], "0 <= p < 1"),
        (["model.name=alexnet", "p=half"], "not a number"),
        (["model.name=alexnet", "seed=-1"], "whole number"),
        (["model.name=alexnet", "where=activation"], "did you mean 'activations'"),
        (["model.name=alexnet", "image=none.png"], "image=none.png: no such file"),
        (["model.name=alexnet", "model.weights=none.pth"], "model.weights=none.pth: no such file"),
        (["run=/nowhere"], "not a run folder"),
        (["run=/nowhere", "model.weights=x"], "a run has weights of its own"),
        (["model.name=alexnet", f"image={__file__}"], "cannot be read as an image"),
        (["model.name=alexnet", f"model.weights={__file__}"], "cannot be read as a file of weights"),
        (["model.name=squeezenet1_1", "layers=conv9"], "layers='conv9' matches no layer; the model has 00_features_0"),
        (["model.name=squeezenet1_1", f"out={__file__}"], "is a file; give a folder"),
    ],
    ids=lambda value: " ".join(map(str, value))[:50] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(capsys, arguments, expected):
    assert expected in said_wrong(capsys, *arguments)


def test_weights_of_another_model_are_refused_by_name(capsys, weights, tmp_path):
    assert "not the weights of alexnet" in said_wrong(capsys, "model.name=alexnet", f"model.weights={weights}")
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    wrong = said_wrong(capsys, "model.name=alexnet", f"model.weights={tmp_path / 'x.ckpt'}")
    assert "holds no state_dict" in wrong


def test_a_test_image_that_a_run_lacks_is_refused(capsys, run):
    assert "test images 0 to 538" in said_wrong(capsys, f"run={run}", "image=539")
    assert "ckpt=lost" in said_wrong(capsys, f"run={run}", "ckpt=lost")


def test_the_command_writes_the_picture_and_prints_the_numbers(capsys, run, tmp_path):
    main([f"run={run}", "image=3", "p=0.5", "layers=[03_*, 11_*]", f"out={tmp_path / 'new'}"])
    printed = capsys.readouterr().out
    picture = tmp_path / "new" / "look.png"
    assert str(picture) in printed
    assert sorted(path.name for path in picture.parent.iterdir()) == ["look.json", "look.png"]
    with Image.open(picture) as image:
        width, height = image.size
    assert width > 1500
    assert height > 1000
    assert "spatial p=0.3 looking at test image 3" in printed
    assert "03_blocks_0_dropout" in printed
    assert "07_blocks" not in printed.split("mean activation")[1]


@pytest.mark.slow
def test_the_report_shows_what_the_command_left_in_a_run(capsys, run):
    main([f"run={run}"])
    capsys.readouterr()
    seen = json.loads((run / "look" / "look.json").read_text())
    look = look_at(from_run(run, "best", ""), 0.3)
    assert (seen["weights"], seen["warning"], seen["layers"]) == ("trained", None, look.layers)
    for condition, guesses in seen["predictions"].items():
        likely = look.views[condition].probabilities.sort(descending=True)
        assert [name for name, _ in guesses] == [str(index) for index in likely.indices[:5].tolist()]
        assert [share for _, share in guesses] == pytest.approx(likely.values[:5].tolist())
    section = look_section(run)
    assert seen["title"] in section
    for layer, means in seen["means"].items():
        off = look.views[OFF].outputs[layer].mean().item()
        assert float(means[OFF]) == pytest.approx(off, rel=0.01)
        assert f"<td>{means['unscaled']}</td>" in section
    assert record(look_at(subject(), 0.5))["warning"] == RANDOM


def test_a_wrong_value_is_answered_without_importing_torch():
    code = "import sys; from dropout_lab.look.__main__ import main; main(['model.name=vgg16', 'p=2'])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "0 <= p < 1" in done.stderr
    assert not re.search(r"\| +(torch|lightning|matplotlib|PIL)$", done.stderr, re.MULTILINE)
