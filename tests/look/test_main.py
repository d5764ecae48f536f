"""Laws of the command `look`: what is wrong is one line; the picture and the numbers are written and printed."""

import json
import re
import subprocess
import sys

import pytest
import torch
from looks import subject
from PIL import Image

from dropout_lab.look.__main__ import main
from dropout_lab.look.subject import from_run
from dropout_lab.look.views import OFF, look_at
from dropout_lab.look.words import RANDOM, record
from dropout_lab.report.look_section import look_section


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
