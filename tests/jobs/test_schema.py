"""Values that are refused before torch is imported; what the library refuses as well has the same words there."""

import math

import pytest

from dropout_lab.cli import UserError
from dropout_lab.data import Synthetic
from dropout_lab.dropout import Dropout, Placement
from dropout_lab.jobs import schema

CONFIG = {
    **{"seed": 0, "keyed": True, "compile": False, "channels_last": True, "threads": 1, "resume": "auto"},
    **{"dropout": {"p": 0.5}, "data": {"batch_size": 8}, "loss": {}, "optimizer": {"lr": 0.1}},
    **{"trainer": {"max_epochs": 3}, "callbacks": {}, "logger": {}},
    **{"model": {}, "module": {}, "placement": {}, "dropout_schedule": {}, "lr_scheduler": {}},
}


def refusal(key, value):
    section, _, name = key.rpartition(".")
    with pytest.raises(UserError) as caught:
        schema.validate({**CONFIG, **({section: {**CONFIG[section], name: value}} if section else {name: value})})
    return str(caught.value)


def in_the_library(made, **arguments):
    with pytest.raises((ValueError, TypeError)) as caught:
        made(**arguments)
    return str(caught.value)


@pytest.mark.parametrize("p", [1.5, -0.5, 1, 1.0, math.nan, math.inf, True])
def test_the_rule_on_p_has_the_same_words_on_the_command_line_and_in_the_library(p):
    assert refusal("dropout.p", p) == f"dropout.{in_the_library(Dropout, p=p)}"
    assert refusal("dropout.p", p) == in_the_library(Placement, p=p).replace("placement.", "dropout.")


@pytest.mark.parametrize("p", ["half", None])
def test_what_is_no_number_differs_only_in_how_the_command_line_spells_it(p):
    allowed = refusal("dropout.p", p).partition(": ")[2]
    assert allowed == in_the_library(Dropout, p=p).partition(": ")[2]
    assert allowed == in_the_library(Placement, p=p).partition(": ")[2]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_the_two_seeds_have_one_rule(seed):
    data = {"size": 100, "shape": [1, 2, 2], "num_classes": 2, "noise": 1.0, "batch_size": 8, "seed": 0}
    told = in_the_library(Synthetic, **data, split_seed=seed)
    assert told.replace("data.split_seed", "seed").replace("split_seed", "seed") == refusal("seed", seed)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data.batch_size", 0, "an integer >= 1"),
        ("threads", 0, "an integer >= 1, or null"),
        ("resume", "", "auto, never or the folder of an interrupted run"),
        ("optimizer.lr", 0, "a number > 0"),
        ("optimizer.lr", math.inf, "a number > 0"),
        ("optimizer.weight_decay", -1, "a number >= 0"),
        ("loss.label_smoothing", 1, "the share of the target for all classes, a number with 0 <= share < 1"),
        ("lr_scheduler.interval", "batch", "epoch or step"),
        ("trainer.max_epochs", 0, "an integer >= 1, or -1: trainer.max_steps alone ends training"),
        ("trainer.gradient_clip_val", 0, "a number > 0, or null"),
        ("trainer.devices", 0, "a number of devices >= 1, or auto"),
        ("trainer.benchmark", "perhaps", "true, false or null"),
    ],
)
def test_what_torch_and_lightning_take_or_refuse_without_saying_why_is_refused_with_what_is_allowed(
    key, value, allowed
):
    assert refusal(key, value) == f"{key}={value}: must be {allowed}"


def test_a_training_has_an_end():
    schema.validate({**CONFIG, "trainer": {"max_epochs": -1, "max_steps": 7}})
    for trainer in ({"max_epochs": -1}, {"max_epochs": -1, "max_steps": -1}):
        with pytest.raises(UserError, match=r"^trainer\.max_epochs=-1: trainer\.max_steps=N "):
            schema.validate({**CONFIG, "trainer": trainer})


def test_keys_of_forks_and_of_constructors_pass():
    """Constructors refuse the values of theirs."""
    schema.validate({**CONFIG, "mine": "x", "data": {"batch_size": 8, "label_noise": 2, "mine": "x"}})
