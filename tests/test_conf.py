"""Every file of conf/ composes, and everything it describes can be built."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.build import (
    build_data,
    build_lr_scheduler,
    build_module,
    build_network,
    build_optimizer,
    build_rates,
    instantiate,
)
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.plan import plan
from dropout_lab.train.trainer import try_trainer

# Groups whose options are tried alone; those that need a value of their own get one.
BUILT = ("dropout", "placement", "dropout_schedule", "more_dropout", "model", "data")
GROUPS = (
    *BUILT,
    "loss",
    "module",
    "optimizer",
    "lr_scheduler",
    "trainer",
    "logger",
    "callbacks",
    "debug",
)
NEEDS = {
    "placement/pattern": ["placement.pattern=*relu*"],
    "placement/branches": ["model=transformer"],
    "placement/attention": ["model=transformer"],
    "more_dropout/stochastic_depth": ["model=wide_resnet", "model.depth=10", "model.width=1"],
    "more_dropout/classifier": ["placement=convolutions"],
    "model/torchvision": ["model.stem=cifar"],
    "model/wide_resnet": ["model.depth=10", "model.width=1"],
    "data/tabular": ["module=regression", "model=mlp"],
    "data/text": ["module=language_model", "model=transformer"],
    "module/language_model": ["data=text", "model=transformer"],
    "data/image_folder": ["data.root=nowhere", "data.image_size=16", "data.num_classes=3"],
}
OPTIONS = sorted(f"{group}/{path.stem}" for group in GROUPS for path in (CONF / group).glob("*.yaml"))


def test_every_group_is_tried():
    untried = {
        "hydra",
        "local",
        "paths",
        "sweep",
        "experiment",
        "recipe",
    }  # these are no choice, or tested with their commands
    assert {path.name for path in CONF.iterdir() if path.is_dir()} - untried == set(GROUPS)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_can_be_built(option, tmp_path):
    group, _, name = option.partition("/")
    words = [f"{group}={name}", *NEEDS.get(option, []), f"hydra.run.dir={tmp_path}", "+where_torch_is=here"]
    try:
        (job,) = plan(words).jobs
    except UserError as error:
        if "needs a value" in str(error):
            pytest.skip(f"{error} (NEEDS in this file may give one)")
        raise
    cfg = job.config
    cfg.run = {key: str(tmp_path) for key in cfg.run}
    if group in (*BUILT, "optimizer", "lr_scheduler"):
        data = build_data(cfg)
        net, layers, _ = build_network(cfg, data)
        optimizer = build_optimizer(cfg, build_module(cfg, net), data)
        assert optimizer.param_groups
        assert build_lr_scheduler(cfg, optimizer, epochs=3, steps=12)["scheduler"].get_last_lr()
        assert layers
        assert bool(build_rates(cfg, net).rates) == (option not in ("placement/none", "dropout/concrete"))
    elif group == "loss":
        assert instantiate(cfg.loss)(torch.zeros(1, 2), torch.tensor([0])) > 0
    else:
        try_trainer(job)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted((CONF / "dropout").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_strategy_is_a_partial_with_p(path: Path):
    node = OmegaConf.load(path)
    assert node._partial_ is True
    assert node.p == 0.5


def test_no_value_is_repeated_that_follows_from_another():
    """placement.p and data.seed follow dropout.p and seed unless they are given."""
    cfg = plan(["dropout.p=0.25", "seed=3"]).base
    assert cfg.placement.p == 0.25
    assert cfg.data.seed == 3


CHOSEN = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name not in ("base", "conf", "local")]


@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_that_is_chosen_opens_with_a_line_that_says_what_it_is(path: Path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert re.match(r"# \S.{15}", lines[0])
    assert "pip install" not in lines[0][:30]  # what it needs is not what it is


def test_what_options_share_is_no_option():
    """A base is a folder within a group, which Hydra does not offer."""
    with pytest.raises(UserError, match="allowed: cifar10, cifar100, digits, fashion_mnist, image_folder, mnist, svhn"):
        plan(["data=images"])
