"""Planned jobs: their words, composed and checked, and their configurations when they are asked for.

Jobs that differ in values only, not in files, cost a few milliseconds each, and a p, a learning rate or a seed less.
"""

import json
import pickle
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError
from dropout_lab.jobs import schema
from dropout_lab.jobs.composition import Composer
from dropout_lab.jobs.overrides import explain_error, flat

# What changes from job to job more than anything else, and a value that each may have.
VARIED = {"seed": 0, "dropout.p": 0.5, "optimizer.lr": 0.1}
BUILT = (  # sections that describe one thing each
    *("data", "model", "dropout", "placement", "dropout_schedule", "loss", "optimizer", "lr_scheduler", "trainer"),
)
OF_THE_SWEEP = ("sweeper", "launcher", "sweep", "callbacks", "hydra_logging")  # what Hydra reads once for all jobs


@dataclass(frozen=True, eq=False)
class Job:
    """A planned job: one run.

    Attributes:
        words: its overrides, as Hydra takes them.
        varied: its values of those keys of ``VARIED`` that are plain numbers.
        alike: its other values, resolved and in plain containers, as if it had those of ``VARIED``: equal for jobs that
            differ in nothing else.
        choices: group -> the option that was chosen.
    """

    words: tuple[str, ...]
    varied: Mapping[str, Any]
    alike: dict[str, Any]
    choices: dict[str, Any]
    composer: Composer
    _written: bytes

    @property
    def config(self) -> DictConfig:
        """The configuration with its node ``hydra``, anew each time: a sweep of many keeps none of them."""
        return self.composer.config(self.words)

    @property
    def own(self) -> DictConfig:
        """The configuration without its node ``hydra``, in half the time."""
        return self.composer.own(self.words)[0]

    @property
    def blank(self) -> DictConfig:
        """Its ``own`` before it starts: what is filled in then is empty."""
        config = self.own
        config.run = dict.fromkeys(config.run, "")
        return config

    @property
    def written(self) -> dict[str, Any]:
        """The configuration as ``written`` gives it."""
        return _with(pickle.loads(self._written), self.varied)


def checked_jobs(composer: Composer, jobs: Sequence[Sequence[str]], base: DictConfig) -> list[Job]:
    """The jobs with these words.

    Those that differ in nothing but the values of ``VARIED`` are composed once, and of the others only those read
    files that choose other ones.

    Raises:
        UserError: the first of their values that is missing or not allowed; an option that sets what is not a job's.
    """
    let_hydra_be_read(base)  # again, its folder settled
    made: dict[tuple[str, ...], tuple[Job, dict[str, str]]] = {}
    sections, choices = _Sections(), dict[tuple[str, ...], dict[str, Any]]()
    checked = []
    for words in jobs:
        alone = _said_once(composer, words)
        given = {word: composer.number(word) for word in words if word.partition("=")[0] in alone}
        like = tuple(word if given.get(word) is None else word.partition("=")[0] for word in words)
        if like not in made:
            _require_own(composer, words)
            files = composer.files(words)
            try:
                if files not in choices:
                    config = composer.config(files)
                    composer.require_read(config, files, [word for job in jobs for word in job])
                    _require_one_sweep(config, base, files)
                    choices[files] = dict(config.hydra.runtime.choices)
                own, meant = composer.own(words)
                alike = _job(own, sections, alone, words=tuple(meant), choices=choices[files], composer=composer)
                made[like] = alike, dict(zip(words, meant, strict=True))
            except (HydraException, OmegaConfBaseException) as error:
                said = explain_error(error, words, [*composer.about, *files])
                said += composer.where_set(getattr(error, "full_key", None), words)
                raise UserError(said + _where(files, jobs)) from error
        first, spelled = made[like]
        varied = {word.partition("=")[0]: value for word, value in given.items() if value is not None}
        as_meant = tuple(spelled.get(word, word) for word in words)
        checked.append(replace(first, words=as_meant, varied={**first.varied, **varied}))
        schema.validate(_with(checked[-1].alike, checked[-1].varied))
    return checked


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def written(config: DictConfig) -> dict[str, Any]:
    """A configuration but its node ``hydra`` as plain containers, its values as they are written."""
    plain: Any = OmegaConf.to_container(config)
    return {key: value for key, value in plain.items() if key != "hydra"}


def let_hydra_be_read(config: DictConfig) -> None:
    """Let ``${hydra:...}`` be resolved."""
    HydraConfig.instance().set_config(config)
    OmegaConf.set_readonly(config.hydra, False)


def _said_once(composer: Composer, words: Sequence[str]) -> set[str]:
    """Those keys of ``VARIED`` that at most one word sets, and none takes a value of."""
    keys = [composer.parsed(word).key_or_group for word in words if not composer.chooses_files(word)]
    about = {key: [other for other in keys if key == other or key.startswith(f"{other}.")] for key in VARIED}
    text = " ".join(words).replace("\\", "")  # a sweeper escapes braces
    return {key for key in VARIED if len(about[key]) <= 1 and f"${{{key}}}" not in text}


def _job(config: DictConfig, sections: "_Sections", alone: Collection[str], **known: Any) -> Job:
    """A job from its configuration without ``hydra`` and what else is known of it; its values are not validated yet."""
    run = written(config)["run"]
    if not isinstance(run, dict) or set(run.values()) != {"???"}:
        raise UserError("run: is filled in when a job starts; leave it out")
    config.run = dict.fromkeys(run, "")
    values = written(config)
    leaves = flat(values)
    for key in sorted(key for key, value in leaves.items() if value == "???"):
        raise UserError(f"{key} needs a value: {key}=...")
    for section in [section for section in BUILT if isinstance(values.get(section), dict)]:
        if "_target_" not in values[section]:
            raise UserError(f"{section} needs a _target_: what builds it; its option in conf/{section}/ has none")
    varied = {key: leaves[key] for key in alone if isinstance(leaves.get(key), int | float)}
    for key in varied:
        OmegaConf.update(config, key, VARIED[key])
    alike = sections.resolved(config, _with(values, {key: VARIED[key] for key in varied}))
    return Job(varied=varied, alike=alike, _written=pickle.dumps(values), **known)


def _with(values: dict[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with other ones for some keys."""
    changed = dict(values)
    for key, value in varied.items():
        section, _, name = key.rpartition(".")
        changed[section or name] = {**changed[section], name: value} if section else value
    return changed


class _Sections:
    """Sections of configurations, resolved once for all in which everything that they are made of is written the same.

    Resolving takes most of the time of composing a job, and a sweep changes one section of many.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def resolved(self, config: DictConfig, values: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration in plain containers, given as it is written, too."""
        try:
            texts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in values.items()}
        except TypeError as error:
            raise UserError(f"names of one kind only can lie side by side, all text or all numbers: {error}") from error
        values = {}
        for name in texts:
            made_of = json.dumps([name, *((part, texts[part]) for part in sorted(_made_of(name, texts)))])
            if made_of not in self._known:
                section = config[name]
                self._known[made_of] = resolved(section) if OmegaConf.is_config(section) else section
            values[name] = self._known[made_of]
        return values


def _made_of(name: str, texts: Mapping[str, str]) -> Collection[str]:
    """The sections of which a section takes values; all of them where a resolver may take one of any."""
    found, new = set(), {name}
    while new:
        found.add(part := new.pop())
        marks, named = texts[part].count("${"), re.findall(r"\$\{(\w+)[.}]", texts[part])
        if len(named) < marks or not texts.keys() >= set(named):
            return texts.keys()
        new |= set(named) - found
    return found


def _require_own(composer: Composer, words: Sequence[str]) -> None:
    """Refuse words about Hydra itself in an arm of a sweep."""
    for word in words:
        if composer.parsed(word).is_hydra_override():
            raise UserError(f"{word}: is of the sweep as a whole and can't be in an arm; say it for all")


def _require_one_sweep(config: DictConfig, base: DictConfig, files: Collection[str]) -> None:
    """Refuse a job in which an option sets something that Hydra reads once for all jobs of a sweep."""
    for part in OF_THE_SWEEP:
        of_job, of_sweep = (flat({part: OmegaConf.to_container(cfg.hydra)[part]}) for cfg in (config, base))  # type: ignore[call-overload, index]
        for key in [key for key in {**of_job, **of_sweep} if of_job.get(key) != of_sweep.get(key)]:
            swept = [word for word in files if word not in base.hydra.overrides.task] or ["an arm"]
            raise UserError(
                f"{' '.join(swept)}: sets hydra.{key}, which is of the sweep as a whole; choose one option, or start a "
                "sweep for each"
            )


def _where(files: Sequence[str], jobs: Sequence[Sequence[str]]) -> str:
    """In which of several jobs something is, by the options that not all of them have."""
    own = [word for word in files if any(word not in job for job in jobs)]
    return f" (in the job {' '.join(own)})" * bool(own)
