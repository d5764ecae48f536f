"""Where the repository and its conf/ lie, and what Hydra has to know before it reads them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

REPOSITORY = Path(__file__).parents[3]
CONF = REPOSITORY / "conf"
ORIGIN = REPOSITORY / "origin.json"  # in a copy that a cluster's jobs run: what it is a copy of
VERSION_BASE = "1.3"

OmegaConf.register_new_resolver(
    "repository",
    lambda: json.loads(ORIGIN.read_text())["repository"] if ORIGIN.exists() else str(REPOSITORY),
    replace=True,
)

# Hydra would merge conf/hydra/launcher/*.yaml with the settings that packages of the same launchers have registered.
Plugins.instance()
for _file in (CONF / "hydra" / "launcher").glob("*.yaml"):
    ConfigStore.instance().repo["hydra"]["launcher"].pop(_file.name, None)


@contextmanager
def one_store() -> Iterator[None]:
    """Let Hydra share its store of configurations, of which it makes 138 copies to answer --help: 1 s.

    Not where jobs start: those of joblib rely on having a copy.
    """
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del ConfigStore.__deepcopy__  # type: ignore[attr-defined]
