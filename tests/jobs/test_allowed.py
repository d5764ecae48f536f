"""Of what a run folder names only what is on the list is built, and nothing else is so much as imported."""

import importlib
import re
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.allowed import ALLOWED, require_allowed, require_values, without_network
from dropout_lab.jobs.conf import CONF, REPOSITORY
from dropout_lab.runs.old_targets import OLD_TARGETS

OF_HYDRA = CONF / "hydra"  # is never read from a folder
GUIDE = (REPOSITORY / "src" / "dropout_lab" / "README.md").read_text()


def targets_in(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        for value in node.values():
            yield from targets_in(value)
    for value in node if isinstance(node, list) else []:
        yield from targets_in(value)


OF_CONF = sorted(
    {
        target
        for path in CONF.rglob("*.yaml")
        if OF_HYDRA not in path.parents
        for target in targets_in(yaml.safe_load(path.read_text()))
    }
)
ATTACKS = [
    *("torch.hub.load", "torch.load", "torch.jit.load", "torch.package.PackageImporter", "torch.fx.GraphModule"),
    *("torch.hub.load_state_dict_from_url", "torchvision.models.resnet18", "torchvision.models.get_model"),
    *("numpy.load", "pandas.read_pickle", "pickle.load", "joblib.load", "distutils.spawn.spawn", "runpy.run_path"),
    *("subprocess.run", "subprocess.Popen", "os.system", "posix.system", "builtins.eval", "builtins.exec", "eval"),
    *("hydra.utils.instantiate", "hydra.utils.get_class", "functools.partial", "importlib.import_module"),
    *("dropout_lab.runs.provenance._git", "dropout_lab.runs.atomic.write_whole", "dropout_lab.runs.atomic.replacing"),
    *("dropout_lab.jobs.build.instantiate", "dropout_lab.jobs.processes.launch", "dropout_lab.runs.network.restore"),
    *("dropout_lab.train.__main__.main", "dropout_lab.fold.main", "dropout_lab.runs.checkpoints.newest"),
    *("dropout_lab.runs.checkpoints.AtomicCheckpointIO", "dropout_lab.train.sweep.execute", "dropout_lab.models"),
    # a walk through what a module imports
    *("torch.nn.functional.torch.hub.load", "torch.nn.modules.module.torch.load", "torch.optim.optimizer.Any"),
    *("dropout_lab.models.small.nn.Linear", "dropout_lab.models.small.nn", "dropout_lab.data.table_file.np.load"),
    *("dropout_lab.train.sweep.os.system", "dropout_lab.runs.checkpoints.torch.load", "torch.nn.Linear.__init__"),
    *("torch.nn.Module.load_state_dict", "lightning.pytorch.Trainer.fit", "lightning.pytorch.cli.LightningCLI"),
    *("lightning.pytorch.demos.boring_classes.BoringModel", "dropout_lab.data.files.make_ready", "torch.nn.init.ones_"),
    *("timm.create_model", "torch.nn", "torch.nn.Lineer", "torch.nn.nowhere.Linear", "", ".", "..", "torch..nn.Linear"),
    *(None, 3, ["torch.nn.Linear"], {"torch": "nn"}),
]
PLACES = [  # in which a target may hide
    lambda one: {"data": {"seed": one}},
    lambda one: {"data": {"_target_": "dropout_lab.data.Digits", "_args_": [one]}},
    lambda one: {"callbacks": [1, [{"a": one}]]},
    lambda one: {"nobody": {"builds": {"this": one}}},
    lambda one: one,
]


@pytest.mark.parametrize("target", OF_CONF)
def test_all_that_conf_describes_may_be_rebuilt(target):
    require_allowed({"a": {"_target_": target}}, "a run")


def test_what_earlier_versions_described_and_torch_and_lightning_offer_may_be_rebuilt():
    others = ["torch.optim.Rprop", "torch.nn.modules.loss.NLLLoss", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
    others += ["torchvision.models.ResNet", "lightning.Trainer", "lightning.pytorch.loggers.CSVLogger"]
    others += ["lightning.pytorch.callbacks.LearningRateMonitor", "lightning.pytorch.strategies.DDPStrategy"]
    for target in [*OLD_TARGETS.values(), *others]:
        require_allowed([{"_target_": target}], "a run")


def test_what_the_guide_adds_may_be_rebuilt(tmp_path, monkeypatch):
    files = re.findall(r"^# src/dropout_lab/(\w+)/(\w+)\.py\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    added = re.findall(r"_target_: (dropout_lab\.\S+)", GUIDE)
    here = REPOSITORY / "src" / "dropout_lab"
    files = [(room, name, code) for room, name, code in files if not (here / room / f"{name}.py").exists()]
    assert len(files) == len(added) == 5  # others are shown as they are
    for room, name, code in files:
        (tmp_path / room).mkdir()
        (tmp_path / room / f"{name}.py").write_text(code)
        package = importlib.import_module(f"dropout_lab.{room}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / room)])
        monkeypatch.delitem(sys.modules, f"dropout_lab.{room}.{name}", raising=False)
    for target in added:
        require_allowed({"_target_": target}, "a run")
        monkeypatch.delitem(sys.modules, target.rpartition(".")[0])


@pytest.mark.parametrize("target", ATTACKS, ids=str)
def test_nothing_else_is_rebuilt_wherever_it_stands(target):
    for place in PLACES:
        with pytest.raises(UserError, match=re.escape(f"_target_={target}: ") + r".*add a line to ALLOWED in ") as told:
            require_allowed(place({"_target_": target}), "RUN/config.yaml")
        assert str(told.value).startswith("RUN/config.yaml: ")


def test_what_is_not_on_the_list_is_not_imported(tmp_path, monkeypatch):
    """Importing a module runs it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "only_here.py").write_text("raise SystemExit('ran')")
    before = set(sys.modules)
    for target in ("only_here.Model", "only_here", "antigravity.fly", "dropout_lab.dashboard.main", "this.s"):
        with pytest.raises(UserError, match="is not on the list"):
            require_allowed({"_target_": target}, "a run")
    assert set(sys.modules) == before


def test_a_fork_adds_a_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nets.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\ndef make(): pass\n")
    own = [("my_nets", ("torch.nn.Module",))], [("my_nets.make", ())]
    for lines, built, not_built in zip(own, ("Net", "make"), ("make", "Net"), strict=True):
        monkeypatch.setattr("dropout_lab.jobs.allowed.ALLOWED", (*ALLOWED, *lines))
        require_allowed({"_target_": f"my_nets.{built}"}, "a run")
        with pytest.raises(UserError, match=r"not on the list|of another kind"):
            require_allowed({"_target_": f"my_nets.{not_built}"}, "a run")
    monkeypatch.delitem(sys.modules, "my_nets")


def test_what_is_rebuilt_is_not_fetched():
    model = {"_target_": "torch.nn.Linear", "pretrained": True, "parts": [{"pretrained": "tag"}]}
    built = without_network(OmegaConf.create({"model": model, "seed": 1}), "a run")
    assert built == {"model": {**model, "pretrained": False, "parts": [{"pretrained": False}]}, "seed": 1}
    for name in ("hf-hub:someone/net", "hf_hub:someone/net"):
        with pytest.raises(UserError, match="without a network"):
            without_network(OmegaConf.create({"model": {"_target_": "torch.nn.Linear", "name": name}}), "a run")


@pytest.mark.parametrize(
    "word",
    [
        *("hydra.searchpath=[file:///x]", "hydra/launcher=joblib", "+callbacks@hydra.callbacks=default"),
        *("model._target_=os.system", "+callbacks.x={_target_:os.system}", "+a=[{'_target_':os.system}]"),
        *(r"notes=$\{oc.env\:HOME\}", "notes='${oc.env:HOME}'", "notes='${${a}:HOME}'", "tags=['${now:}']"),
        *("debug=../../../x", "callbacks=[default,../../x]", "--config-dir=x", "-m", "seed=1,2", "seed", 3, None),
    ],
    ids=str,
)
def test_words_of_a_folder_are_data(word):
    with pytest.raises(UserError, match=r"^a run: .*(only those that set values count|is not on the list)"):
        require_values(["seed=1", word], "a run")


def test_words_that_set_values_are_taken():
    words = ["model=mlp", "callbacks=[default,max_norm]", "+model.x=1", "++seed=2", "~model.widths", "notes='a b'"]
    words += [r"data.split_seed=$\{seed\}", "optimizer._target_=torch.optim.Adam", "data.file=../a.csv"]
    require_values(words, "a run")
