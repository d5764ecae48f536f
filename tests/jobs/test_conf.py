"""Laws of where the configurations lie, and of Hydra's store."""

import json
from copy import deepcopy

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dropout_lab.jobs import conf


def test_the_configurations_lie_in_the_repository():
    assert (conf.REPOSITORY / "pyproject.toml").is_file()
    assert (conf.CONF / "train.yaml").is_file()


def test_a_copy_of_the_repository_speaks_of_what_it_is_a_copy_of(tmp_path, monkeypatch):
    asked = OmegaConf.create({"at": "${repository:}"})
    assert asked.at == str(conf.REPOSITORY)
    (tmp_path / "origin.json").write_text(json.dumps({"repository": "/home/someone/lab"}))
    monkeypatch.setattr(conf, "ORIGIN", tmp_path / "origin.json")
    assert asked.at == "/home/someone/lab"


def test_launchers_of_conf_are_not_merged_with_what_their_packages_registered():
    registered = set(ConfigStore.instance().repo["hydra"]["launcher"])
    assert registered.isdisjoint(path.name for path in (conf.CONF / "hydra" / "launcher").glob("*.yaml"))


def test_the_store_is_one_inside_and_copied_again_outside():
    store = ConfigStore.instance()
    with conf.one_store():
        assert deepcopy(store) is store
    assert deepcopy(store) is not store
