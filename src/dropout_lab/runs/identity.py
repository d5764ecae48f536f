"""Identity of a run: its name, its group and id at W&B, and the fingerprints by which it is known again."""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dropout_lab.jobs.job import Job, written
from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.folder import read_config
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.replicates import keys, replicate_words
from dropout_lab.runs.resume import resumed_by_name
from dropout_lab.runs.settings import NOT_OF_THE_CONFIGURATION, NOT_OF_THE_STRATEGY, ignored_by_none
from dropout_lab.runs.start_from import READ, content

LENGTHS = ("max_epochs", "max_steps")  # of trainer: how long a run is meant to be, which may change later
LONGEST = 110  # characters of a label: W&B takes 128 in the name of a run or group, which also has the seed or a hash


class Fingerprints(NamedTuple):
    """Fingerprints of a configuration, 16 hexadecimal digits each: equal where it is written equal, wherever it runs.

    Attributes:
        run: of all of it.
        group: of all but what tells replicates apart, the seed for one.
    """

    run: str
    group: str


def describe(cfg: DictConfig, hydra_cfg: Any, name: str | None = None) -> None:
    """Fill in the section ``run`` of a job: where it lies, what it is called, how it came about.

    A run that is resumed by its folder stays the run that it was, also if it was a job of a sweep. One that starts
    anew where another was has another id, unless it is the same over again: else W&B would draw both as one curve.

    Args:
        cfg: composed configuration.
        hydra_cfg: its ``hydra`` node.
        name: what a sweep calls the job, without the seed; None: the label of a job by itself.
    """
    directory = Path(hydra_cfg.runtime.output_dir)
    prints = fingerprints(cfg)
    cfg.run.config_hash = prints.run
    for key in READ:
        if (value := OmegaConf.select(cfg, key)) is not None:  # also read where this process works elsewhere
            OmegaConf.update(cfg, key, str(Path(str(value)).resolve()))
    cfg.run.overrides = [str(override) for override in hydra_cfg.overrides.task]
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    called = name or label(cfg, hydra_cfg)
    cfg.run.dir = str(directory)
    cfg.run.root = str(Path(hydra_cfg.sweep.dir).absolute()) if sweep else str(directory)
    cfg.run.label = called
    cfg.run.choices = _choices(hydra_cfg)
    cfg.run.name = f"{called} {replicate_words(cfg, cfg.seed, cfg.run.overrides)}"
    cfg.run.group = f"{called} {prints.group[:8]}"
    slug = "".join(c if c.isalnum() else "-" for c in called)[:40]
    anew = time.time_ns() if cfg.resume == "never" else ""
    identity = f"{directory} {prints.run} {provenance()['code_hash']} {anew}"
    cfg.run.id = f"{slug}-seed-{cfg.seed}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    if resumed_by_name(cfg.resume):
        _keep_names(cfg, read_config(directory), prints)


def fingerprints(cfg: DictConfig | Job) -> Fingerprints:
    """Fingerprints of a composed configuration, or of that of a planned job, by which a run is known again.

    They are of its values as they are written, since resolving all takes 10 times as long. So a value that another one
    is taken from counts once: the seed, and where runs and data lie. What a resolver says, such as ``${oc.env:NAME}``,
    is written nowhere and counts as well. Of a run that is read (``READ``) the weights count, and not where they lie.
    """
    plain = cfg.written if isinstance(cfg, Job) else written(cfg)
    own = {key: value for key, value in plain.items() if key not in NOT_OF_THE_CONFIGURATION}
    called = [key for key, value in flat(own).items() if re.search(r"\$\{(?!hydra:)[\w.]+:", str(value))]
    own[""] = {key: str(OmegaConf.select(cfg.config if isinstance(cfg, Job) else cfg, key)) for key in called}
    group = _digest(_without(own, keys(own)))
    for key in [key for key in READ if flat(own).get(key) is not None]:  # each seed's may be another run
        own = _with(own, key, content(OmegaConf.select(cfg.own if isinstance(cfg, Job) else cfg, key), key))
    return Fingerprints(_digest(own), group)


def label(
    cfg: Mapping[str, Any] | DictConfig, hydra: Mapping[str, Any] | DictConfig, leave_out: Collection[str] = ()
) -> str:
    """The name of a configuration: its arm or its option of dropout, and the other words that tell it from others.

    Words are as Hydra spells their values (``True`` for ``true``), but for a leading + and escapes, and without
    seed and other replicates. A name that is too long for W&B ends in "…".

    Args:
        cfg: composed configuration.
        hydra: its ``hydra`` node.
        leave_out: words that need no mention, as all jobs of a sweep have them.
    """
    own = shlex.split((hydra["sweeper"].get("arms") or {}).get(cfg["arm"], "")) if cfg["arm"] else ["dropout"]
    told = {_key(word) for word in own}
    if str(cfg["dropout"]["_target_"]).endswith(".none"):
        told.update(ignored_by_none(cfg))
    words = [str(cfg["arm"] or hydra["runtime"]["choices"]["dropout"])]
    for word in hydra["overrides"]["task"]:
        key = _key(word)
        if (
            word not in leave_out
            and key not in told | {*keys(cfg)}
            and key.partition(".")[0] not in NOT_OF_THE_STRATEGY
        ):
            words.append(re.sub(r"\\(.)", r"\1", word.lstrip("+")))
    return _short(" ".join(words))


def _keep_names(cfg: DictConfig, before: DictConfig, prints: Fingerprints) -> None:
    """Let a run that goes on have the names that it had, but for its length where that is another now."""
    cfg.run.update({key: before.run[key] for key in ("root", "label", "name", "group") if key in before.run})
    lengths = {key: (before.get("trainer", cfg.trainer).get(key), cfg.trainer.get(key)) for key in LENGTHS}
    if changed := {f"trainer.{key}={old}": f"trainer.{key}={new}" for key, (old, new) in lengths.items() if old != new}:
        words = [changed.get(word, word) for word in cfg.run.label.split(" ")]
        cfg.run.label = _short(" ".join([*words, *(word for word in changed.values() if word not in words)]))
        cfg.run.name = f"{cfg.run.label} {replicate_words(cfg, cfg.seed, cfg.run.overrides)}"
        cfg.run.group = f"{cfg.run.label} {prints.group[:8]}"


def _short(text: str) -> str:
    """A label that W&B takes."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _key(word: str) -> str:
    """The key or group that an override is about."""
    return word.partition("=")[0].lstrip("+~")


def _choices(hydra: DictConfig) -> dict[str, str]:
    """The option that was chosen of each group, but those of Hydra's own; groups without a choice are left out."""
    chosen = {str(group): option for group, option in hydra.runtime.choices.items() if option is not None}
    return {group: option for group, option in chosen.items() if group.partition("/")[0] != "hydra"}


def _without(values: Mapping[str, Any], left_out: Iterable[str]) -> dict[str, Any]:
    """Values without those of some keys, ``seed`` or ``data.fold``."""
    rest = dict(values)
    for key in left_out:
        section, _, name = key.rpartition(".")
        if not section or name in (rest.get(section) or {}):
            rest = _with(rest, key, None)
    return rest


def _with(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Values with another one for a key, ``seed`` or ``data.fold``."""
    section, _, name = key.rpartition(".")
    return {**values, **({section: {**values[section], name: value}} if section else {name: value})}


def _digest(values: dict[str, Any]) -> str:
    """A fingerprint of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
