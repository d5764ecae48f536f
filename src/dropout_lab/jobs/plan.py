"""The plan of a command line: every job of a sweep, composed and checked before the first one starts.

Imports neither torch nor Lightning, so that a typo is answered at once.
"""

import importlib.util
import pickle
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError
from dropout_lab.jobs import schema
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.jobs.overrides import explain_error, needs_extra, parse_arguments, parse_overrides, quoted


@dataclass
class Plan:
    """The jobs that a command line asks for."""

    arguments: list[str]  # as given
    multirun: bool
    jobs: list[DictConfig]  # composed and checked; empty where only the sweeper knows (optuna)
    folder: Path  # of the run, or of the sweep
    example: DictConfig | None = None  # where jobs is empty: with the first of the values that each key may take

    @property
    def known(self) -> list[DictConfig]:
        """The configurations that are known before the jobs run."""
        return self.jobs or [job for job in [self.example] if job is not None]

    @property
    def elsewhere(self) -> bool:
        """Whether the jobs of the plan run in other processes than this one."""
        return bool(self.known[0].hydra.runtime.choices["hydra/launcher"] != "basic")

    @property
    def hydra_arguments(self) -> list[str]:
        """The arguments for Hydra, with the folder settled: two processes must not each ask the clock."""
        key = "hydra.sweep.dir" if self.multirun else "hydra.run.dir"
        return [*(a for a in self.arguments if not a.startswith(f"{key}=")), f"{key}={quoted(str(self.folder))}"]

    def without(self, numbers: Collection[int]) -> "Plan":
        """The plan of the sweep that leaves these of its jobs out; the others are numbered anew."""
        jobs = [job for number, job in enumerate(self.jobs) if number not in numbers]
        return replace(self, jobs=jobs, arguments=[*self.arguments, f"hydra.sweeper.skip={sorted(numbers)}"])


def plan(arguments: Sequence[str]) -> Plan:
    """Compose and check everything that the arguments ask for, without making a folder.

    Raises:
        UserError: the first thing that is wrong.
    """
    arguments = list(arguments)
    options = parse_arguments(arguments)
    overrides = options.overrides
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        try:
            parsed = parse_overrides(overrides)
            fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
            swept = [o.input_line or "" for o in parsed if o.is_sweep_override()]
            if swept and not options.multirun:
                raise UserError(f"{swept[0]}: several values make a sweep; add -m to run one job for each")
            if any(o.key_or_group == "hydra.sweeper.skip" for o in parsed):
                raise UserError("hydra.sweeper.skip: is what a comparison leaves out by itself; choose what is swept")
            # What is swept may be what makes a fixed key valid: a sweep's own settings are composed without the rest.
            about_sweep = [word for word in fixed if re.match(r"[+~]*(hydra|sweep|experiment|paths)\b", word)]
            base = compose("train", about_sweep if options.multirun else fixed, return_hydra_config=True)
            _resolve(base)
            launcher = base.hydra.runtime.choices["hydra/launcher"]
            if not options.multirun and launcher != "basic":
                raise UserError(f"hydra/launcher={launcher}: launchers start the jobs of a sweep; add -m")
            if launcher.startswith("submitit") and importlib.util.find_spec("submitit") is None:
                raise UserError(needs_extra(f"hydra/launcher={launcher}", launcher))
            if not options.multirun:
                _checked(base)
                return Plan(arguments, False, [base], Path(base.hydra.run.dir).absolute())
            folder = Path(base.hydra.sweep.dir).absolute()
            if not hasattr(get_class(base.hydra.sweeper._target_), "jobs"):  # a search: it decides as it goes
                example = compose("train", _one_of_each(base.hydra.sweeper, parsed), return_hydra_config=True)
                _checked(example)
                return Plan(arguments, True, [], folder, example)
            own = [o.input_line or "" for o in parsed if not o.get_key_element().lstrip("+~").startswith("hydra")]
            hydra = [o for o in fixed if o not in own]
            jobs = _compose_jobs(
                hydra, instantiate(base.hydra.sweeper).jobs(own, GlobalHydra.instance().config_loader())
            )
            if not jobs:
                raise UserError("this sweep has no jobs: one of its ranges is empty, or a glob(...) matches nothing")
            return Plan(arguments, True, jobs, folder)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain_error(error, overrides)) from error


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def _one_of_each(sweeper: DictConfig, overrides: Sequence[Override]) -> list[str]:
    """The overrides of a job that the sweeper may come up with: each key has the first of its values."""
    given = {override.key_or_group for override in overrides}
    own = [f"{key}={values}" for key, values in (sweeper.get("params") or {}).items() if key not in given]
    return [_first(override) for override in [*parse_overrides(own), *overrides]]


def _first(override: Override) -> str:
    """An override with the first of the values that it may take."""
    if not override.is_sweep_override():
        return override.input_line or ""
    key, values = override.get_key_element(), override.value()
    if isinstance(values, Glob):
        raise UserError(f"{override.input_line}: a search can't look names up; list them: {key}=choice(a,b)")
    first = values.start if isinstance(values, IntervalSweep) else next(override.sweep_string_iterator(), None)
    if first is None:
        raise UserError(f"{override.input_line}: a search needs at least one value to try")
    return f"{key}={first}"


def _compose_jobs(hydra: list[str], jobs: list[list[str]]) -> list[DictConfig]:
    """The configuration of every job; jobs that differ in nothing but the seed share one composition (0.1 s each)."""
    composed: dict[tuple[str, ...], tuple[bytes, dict[str, Any]]] = {}  # pickled: a copy takes a fifth of the time so
    configs = []
    for job in jobs:
        key = tuple(override for override in job if not override.startswith("seed="))
        if key not in composed:
            configs.append(compose("train", [*hydra, *job], return_hydra_config=True))
            composed[key] = pickle.dumps(configs[-1]), _checked(configs[-1])
        else:
            seeds = parse_overrides([o for o in job if o not in key])
            copy, values = composed[key]
            configs.append(pickle.loads(copy))
            configs[-1].seed = seeds[-1].value()
            schema.validate({**values, "seed": configs[-1].seed})
    return configs


def _checked(cfg: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration, but those of its ``hydra`` node.

    Raises:
        UserError: the first one that is missing or not allowed.
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("hydra", "run")])
    OmegaConf.set_struct(own, False)
    own.run = dict.fromkeys(cfg.run, "")
    for key in sorted(OmegaConf.missing_keys(own)):
        raise UserError(f"{key} needs a value: {key}=...")
    values = resolved(own)
    schema.validate(values)
    return values


def _resolve(cfg: DictConfig) -> None:
    """Let ``${hydra:...}`` and the folder's time stamp be read from a composition."""
    OmegaConf.set_readonly(cfg.hydra, False)
    cfg.hydra.mode = RunMode.MULTIRUN if cfg.hydra.mode is None else cfg.hydra.mode
    HydraConfig.instance().set_config(cfg)
