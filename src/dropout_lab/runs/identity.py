"""Identity of a run: its name, its group and id at W&B, and the fingerprints by which it is known again."""

import hashlib
import json
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.folder import read_config
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.resume import resumed_by_name
from dropout_lab.runs.settings import NOT_OF_THE_CONFIGURATION, NOT_OF_THE_STRATEGY


class Fingerprints(NamedTuple):
    """Fingerprints of a configuration, 16 hexadecimal digits each: equal where it is written equal, wherever it runs.

    Attributes:
        run: of all of it.
        group: of all but the seed.
    """

    run: str
    group: str


def describe(cfg: DictConfig, hydra_cfg: Any) -> None:
    """Fill in the section ``run`` of a job: where it lies, what it is called, how it came about.

    A run that is resumed by its folder stays the run that it was, also if it was a job of a sweep. One that starts
    anew where another was has another id, unless it is the same over again: else W&B would draw both as one curve.
    """
    directory = Path(hydra_cfg.runtime.output_dir)
    prints = fingerprints(cfg)
    cfg.run.config_hash = prints.run
    cfg.run.overrides = [str(override) for override in hydra_cfg.overrides.task]
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    group = label(cfg, hydra_cfg)[:110]
    cfg.run.dir = str(directory)
    cfg.run.root = str(Path(hydra_cfg.sweep.dir).absolute()) if sweep else str(directory)
    cfg.run.name = f"{group} seed={cfg.seed}"
    cfg.run.group = f"{group} {prints.group[:8]}"
    slug = "".join(c if c.isalnum() else "-" for c in group)[:40]
    anew = time.time_ns() if cfg.resume == "never" else ""
    identity = f"{directory} {prints.run} {provenance()['code_hash']} {anew}"
    cfg.run.id = f"{slug}-seed-{cfg.seed}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    if resumed_by_name(cfg.resume):
        before = read_config(directory).run
        cfg.run.update({key: before[key] for key in ("root", "name", "group")})


def fingerprints(cfg: DictConfig) -> Fingerprints:
    """Fingerprints of a composed configuration, by which a run is known again.

    They are of its values as they are written, since resolving all takes 10 times as long. So a value that another one
    is taken from counts once: the seed, and where runs and data lie. What a resolver says, such as ``${oc.env:NAME}``,
    is written nowhere and counts as well.
    """
    plain: Any = OmegaConf.to_container(cfg)
    own = {key: value for key, value in plain.items() if key not in NOT_OF_THE_CONFIGURATION}
    called = [key for key, value in flat(own).items() if re.search(r"\$\{[\w.]+:", str(value))]
    own[""] = {key: str(OmegaConf.select(cfg, key)) for key in called}
    return Fingerprints(_digest(own), _digest({**own, "seed": None}))


def label(cfg: DictConfig, hydra: DictConfig, leave_out: Collection[str] = ()) -> str:
    """The name of a configuration for a person: its arm or strategy, and what else was overridden but the seed.

    Args:
        cfg: composed configuration.
        hydra: its ``hydra`` node.
        leave_out: overrides that need no mention, as all jobs have them.
    """
    overrides = [str(o) for o in hydra.overrides.task if o not in leave_out]
    strategy = cfg.arm.replace("_", " ") if cfg.arm else hydra.runtime.choices.dropout
    arm = hydra.sweeper.get("arms", {}).get(cfg.arm, "").split() if cfg.arm else []
    told = {*NOT_OF_THE_STRATEGY, "dropout", *(o.split("=")[0] for o in arm)}
    return " ".join([strategy, *(o for o in overrides if o.split("=")[0].lstrip("+~") not in told)])


def _digest(values: dict[str, Any]) -> str:
    """A fingerprint of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
