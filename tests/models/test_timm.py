"""timm's models with a stem and a head that fit the data, named and folded as any other; nothing is downloaded."""

import re
import socket
import sys
from functools import partial

import pytest
import torch
from commands import exit_code, main_of

from dropout_lab.dropout import Dropout, Placement, fold, install
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.jobs.build_errors import unlocatable
from dropout_lab.models.timm import timm_model, wants

SHAPE = (1, 8, 8)
VIT = {"patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 3}
vit = partial(timm_model, name="vit_tiny_patch16_224", **VIT)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A connection is an error here."""

    def refuse(*_):
        raise AssertionError("asked for a connection")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 64)])
def test_stem_positions_and_head_fit_the_data(shape):
    assert vit(shape, 7)(torch.randn(2, *shape)).shape == (2, 7)
    assert timm_model(shape, 7, "test_convnext")(torch.randn(2, *shape)).shape == (2, 7)


def test_images_are_wanted_as_published_unless_an_option_says_otherwise():
    assert wants("vit_tiny_patch16_224", depth=1) == (None, 224)
    assert wants("vit_tiny_patch16_224", img_size=32) == (None, 32)
    assert wants("test_vit", weights="file.pt") == (3, 160)


def test_names_are_the_same_whatever_the_dropout():
    names = []
    for scaling in ("inverted", "classic"):
        net = vit(SHAPE, 5)
        sites = install(net, partial(Dropout, scaling=scaling), Placement("default", p=0.2))
        names.append(([call.name for call in calls(net)], [site.name for site in sites]))
    assert names[0] == names[1]
    assert any(name.endswith("_blocks_0_mlp_drop1") for name in names[0][1])


def test_classic_dropout_folds():
    net, x = vit(SHAPE, 5).eval(), torch.randn(2, *SHAPE)
    install(net, partial(Dropout, scaling="classic"), Placement("default", p=0.2))
    with torch.no_grad():
        torch.testing.assert_close(fold(net, x)(x), net(x))


def test_weights_of_other_classes_are_kept_but_for_the_head(tmp_path):
    torch.save(vit(SHAPE, 11).state_dict(), file := tmp_path / "weights.pt")
    stored = torch.load(file)
    loaded = {classes: vit(SHAPE, classes, weights=str(file)).state_dict() for classes in (None, 11, 5)}
    for classes, state in loaded.items():
        different = {key for key, value in stored.items() if not torch.equal(state[key], value)}
        assert different == ({"head.weight", "head.bias"} if classes == 5 else set())
    with pytest.raises(ValueError, match=r"not the weights of vit_tiny_patch16_224: patch_embed\.proj\.weight is "):
        vit((3, 8, 8), 11, weights=str(file))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_tiny_patch16_242",
            {},
            "model.name=vit_tiny_patch16_242: no model of timm; did you mean 'vit_tiny",
        ),
        (3, {}, "model.name=3: no model of timm; there are "),
        ("test_vit.nothing", {}, "model.name=test_vit.nothing: Invalid pretrained tag (nothing) for test_vit."),
        ("hf-hub:a/b", {}, "model.name=hf-hub:a/b: nothing is downloaded"),
        ("local-dir:a", {}, "model.name=local-dir:a: nothing is downloaded"),
        ("test_vit", {"pretrained": True}, "model.pretrained=True: nothing is downloaded; give weights as a file, "),
        ("test_vit", {"checkpoint_path": "a.pt"}, "model.checkpoint_path=a.pt: nothing is downloaded; give weights"),
        ("test_vit", {"img_sise": 3}, "model.img_sise: test_vit takes no such key; did you mean 'img_size'?"),
        ("test_convnext", {"img_size": 3}, "model.img_size: test_convnext takes no such key; allowed: "),
        ("test_vit", {"embed_dim": 7}, "model.embed_dim=7: test_vit can't be made with that: "),
        ("test_vit", {"weights": "nowhere.pt"}, "model.weights=nowhere.pt: no such file"),
    ],
)
def test_bad_arguments_say_what_is_allowed(name, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{re.escape(message)}") as told:
        timm_model((3, 32, 32), 10, name, **options)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_run_with_options_is_evaluated_from_its_folder(tmp_path, capsys):
    options = [f"+model.{key}={value}" for key, value in VIT.items()]
    small = ["data.image_size=8", "data.train_size=64", "trainer.max_epochs=1", "logger=csv"]
    words = ["model=timm", *options, *small, "~callbacks.activation_stats", f"hydra.run.dir={tmp_path / 'run'}"]
    assert exit_code(*words) == 0
    capsys.readouterr()
    main_of("dropout_lab.evaluate").main([f"run={tmp_path / 'run'}"])
    assert "test/acc" in capsys.readouterr().out


def test_what_a_received_folder_asks_to_fetch_is_built_without():
    assert vit(SHAPE, 3, pretrained=False)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "dropout_lab.models.timm")
    said = unlocatable("dropout_lab.models.timm.timm_model")
    assert re.search(r"^_target_=dropout_lab\.models\.timm\.timm_model needs an extra of this .*\[timm\]'$", said)
