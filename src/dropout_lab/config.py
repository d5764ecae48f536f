"""From a command line to checked configurations: every job of a sweep is composed before the first one starts.

Imports neither torch nor Lightning, so that a typo is answered at once.
"""

import hashlib
import importlib.util
import json
import pickle
import re
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab import schema
from dropout_lab.arguments import in_one_line
from dropout_lab.errors import UserError, nearest
from dropout_lab.tree import flat
from hydra_plugins.dropout_lab_sweeper import jobs as sweep_jobs

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"
ORIGIN = REPOSITORY / "origin.json"  # in a copy that a cluster's jobs run: what it is a copy of
VERSION_BASE = "1.3"
ASKING = ("help", "hydra_help", "cfg", "info", "shell_completion", "package", "resolve")  # options that Hydra answers
OTHERS = ("config_dir", "config_path", "config_name", "experimental_rerun")  # what they bring would not be checked
USAGE = (
    "[--multirun] [--cfg job|hydra|all] [--resolve] [--package PACKAGE] [--info [WHAT]] "
    "[--shell-completion install=SHELL] [--help] [--hydra-help] [--version] [key=value ...]"
)
EXTRAS = {"optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # pyproject.toml: what needs them

OmegaConf.register_new_resolver(
    "repository",
    lambda: json.loads(ORIGIN.read_text())["repository"] if ORIGIN.exists() else str(REPOSITORY),
    replace=True,
)


# Hydra would merge conf/hydra/launcher/*.yaml with the settings that packages of the same launchers have registered.
Plugins.instance()
for _file in (CONF / "hydra" / "launcher").glob("*.yaml"):
    ConfigStore.instance().repo["hydra"]["launcher"].pop(_file.name, None)


@dataclass
class Plan:
    """What a command line asks for."""

    arguments: list[str]  # as given
    multirun: bool
    jobs: list[DictConfig]  # composed and checked; empty where only the sweeper knows (optuna)
    folder: Path  # of the run, or of the sweep
    example: DictConfig | None = None  # where jobs is empty: with the first of the values that each key may take

    @property
    def known(self) -> list[DictConfig]:
        """What can be said about the jobs before they run."""
        return self.jobs or [job for job in [self.example] if job is not None]

    @property
    def elsewhere(self) -> bool:
        """Whether the jobs run in other processes than this one."""
        return bool(self.known[0].hydra.runtime.choices["hydra/launcher"] != "basic")

    @property
    def hydra_arguments(self) -> list[str]:
        """The arguments for Hydra, with the folder settled: two processes must not each ask the clock."""
        key = "hydra.sweep.dir" if self.multirun else "hydra.run.dir"
        return [*(a for a in self.arguments if not a.startswith(f"{key}=")), f"{key}={quoted(str(self.folder))}"]

    def without(self, numbers: Collection[int]) -> "Plan":
        """The sweep that leaves these of its jobs out; the others are numbered anew."""
        jobs = [job for number, job in enumerate(self.jobs) if number not in numbers]
        return replace(self, jobs=jobs, arguments=[*self.arguments, f"hydra.sweeper.skip={sorted(numbers)}"])


def only_asks(arguments: Sequence[str]) -> bool:
    """Whether nothing is to be run: --help, --cfg job, --info, --shell-completion, ...

    Raises:
        UserError: an option that there is not, or one of Hydra's that is none here.
    """
    given = vars(_parsed(arguments))
    for option in OTHERS:
        if given[option] is not None:
            raise UserError(
                f"--{option.replace('_', '-')}: is no option here; configurations of your own belong into conf/, or "
                "into another folder with hydra.searchpath=[file:///FOLDER]"
            )
    completion = [
        word for word in given["overrides"] if re.fullmatch(r"(install|uninstall|query)=(bash|fish|zsh)", word)
    ]
    if given["shell_completion"] and len(completion) != 1:
        raise UserError("--shell-completion: add install=SHELL or uninstall=SHELL, where SHELL is bash, fish or zsh")
    return any(given[option] for option in ASKING)


def options_last(arguments: Sequence[str]) -> list[str]:
    """The same words in an order that Hydra understands: not with -m between overrides, or one behind --info."""
    overrides = _parsed(arguments).overrides
    return sorted(arguments, key=lambda word: word not in overrides)


def plan(arguments: Sequence[str]) -> Plan:
    """Compose and check everything that the arguments ask for, without making a folder.

    Raises:
        UserError: the first thing that is wrong.
    """
    arguments = _with_those_of_resumed(arguments)
    options = _parsed(arguments)
    overrides = options.overrides
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        try:
            parsed = _parse_overrides(overrides)
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
                raise UserError(_needs_extra(f"hydra/launcher={launcher}", launcher))
            if not options.multirun:
                _checked(base)
                return Plan(arguments, False, [base], Path(base.hydra.run.dir).absolute())
            folder = Path(base.hydra.sweep.dir).absolute()
            if not str(base.hydra.sweeper._target_).endswith(".ArmsSweeper"):
                example = compose("train", _one_of_each(base.hydra.sweeper, parsed), return_hydra_config=True)
                _checked(example)
                return Plan(arguments, True, [], folder, example)
            own = [o.input_line or "" for o in parsed if not o.get_key_element().lstrip("+~").startswith("hydra")]
            hydra = [o for o in fixed if o not in own]
            jobs = _compose_jobs(hydra, sweep_jobs(base.hydra.sweeper, own, GlobalHydra.instance().config_loader()))
            if not jobs:
                raise UserError("this sweep has no jobs: one of its ranges is empty, or a glob(...) matches nothing")
            return Plan(arguments, True, jobs, folder)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(error, overrides)) from error


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


def quoted(text: str) -> str:
    """A value as an override spells it, whatever characters it has."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


class Fingerprints(NamedTuple):
    """16 hexadecimal digits each, which are equal where the configuration is written equal, wherever the run lies.

    Attributes:
        run: of all of it.
        group: of all but the seed.
    """

    run: str
    group: str


def fingerprints(cfg: DictConfig) -> Fingerprints:
    """Those of a composed configuration: of its values as they are written, since resolving all takes 10 times as long.

    So a value that another one is taken from counts once: the seed, and where runs and data lie. What a resolver says,
    such as ``${oc.env:NAME}``, is written nowhere and counts as well.
    """
    plain: Any = OmegaConf.to_container(cfg)
    own = {key: value for key, value in plain.items() if key not in ("hydra", "run", "paths", "resume")}
    called = [key for key, value in flat(own).items() if re.search(r"\$\{[\w.]+:", str(value))]
    own[""] = {key: str(OmegaConf.select(cfg, key)) for key in called}
    return Fingerprints(_digest(own), _digest({**own, "seed": None}))


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def label(cfg: DictConfig, hydra: DictConfig, leave_out: Collection[str] = ()) -> str:
    """What a person calls this configuration: its arm or strategy, and what else was overridden, without the seed.

    Args:
        cfg: composed configuration.
        hydra: its ``hydra`` node.
        leave_out: overrides that need no mention, as all jobs have them.
    """
    overrides = [str(o) for o in hydra.overrides.task if o not in leave_out]
    strategy = cfg.arm.replace("_", " ") if cfg.arm else hydra.runtime.choices.dropout
    arm = hydra.sweeper.get("arms", {}).get(cfg.arm, "").split() if cfg.arm else []
    told = {"seed", "arm", "dropout", "sweep", "resume", *(o.split("=")[0] for o in arm)}
    return " ".join([strategy, *(o for o in overrides if o.split("=")[0].lstrip("+~") not in told)])


def _parsed(arguments: Sequence[str]) -> Namespace:
    parser = in_one_line(get_args_parser())
    parser.usage = USAGE
    return parser.parse_intermixed_args(arguments)


def _parse_overrides(words: Sequence[str]) -> list[Override]:
    """The words as Hydra, which has to be initialized, understands them: its loader knows what a glob stands for."""
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(words))


def _with_those_of_resumed(arguments: Sequence[str]) -> list[str]:
    """With resume=DIR: the overrides of the run that lies there, its folder, and what else was given."""
    folder = next((word.partition("=")[2].strip("'\"") for word in arguments if word.startswith("resume=")), "auto")
    if folder in ("auto", "never", "") or not (Path(folder) / "config.yaml").is_file():
        return list(arguments)
    saved = OmegaConf.select(OmegaConf.load(Path(folder) / "config.yaml"), "run.overrides") or []
    given = {word.partition("=")[0] for word in arguments}
    again = [word for word in saved if word.partition("=")[0] not in given]
    return [*again, *arguments, f"hydra.run.dir={quoted(str(Path(folder).absolute()))}"]


def _one_of_each(sweeper: DictConfig, overrides: Sequence[Override]) -> list[str]:
    """The overrides of a job that the sweeper may come up with: each key has the first of its values."""
    given = {override.key_or_group for override in overrides}
    own = [f"{key}={values}" for key, values in (sweeper.get("params") or {}).items() if key not in given]
    return [_first(override) for override in [*_parse_overrides(own), *overrides]]


def _first(override: Override) -> str:
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
    """Every job's configuration; jobs that differ in nothing but the seed share one composition (0.1 s each)."""
    composed: dict[tuple[str, ...], tuple[bytes, dict[str, Any]]] = {}  # pickled: a copy takes a fifth of the time so
    configs = []
    for job in jobs:
        key = tuple(override for override in job if not override.startswith("seed="))
        if key not in composed:
            configs.append(compose("train", [*hydra, *job], return_hydra_config=True))
            composed[key] = pickle.dumps(configs[-1]), _checked(configs[-1])
        else:
            seeds = _parse_overrides([o for o in job if o not in key])
            copy, values = composed[key]
            configs.append(pickle.loads(copy))
            configs[-1].seed = seeds[-1].value()
            schema.check({**values, "seed": configs[-1].seed})
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
    schema.check(values)
    return values


def _resolve(cfg: DictConfig) -> None:
    """Let ``${hydra:...}`` and the folder's time stamp be read from this composition."""
    OmegaConf.set_readonly(cfg.hydra, False)
    cfg.hydra.mode = RunMode.MULTIRUN if cfg.hydra.mode is None else cfg.hydra.mode
    HydraConfig.instance().set_config(cfg)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override; write key=value, quote values with special characters: key='a b'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "experiment/baseline":  # a folder within a group, as Hydra sees it a group of its own
            group, name = "experiment", f"baseline/{name}"
        options = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
        options += sorted(f"baseline/{path.stem}" for path in (CONF / group / "baseline").glob("*.yaml"))
        if not group:
            return f"{name}: no such configuration in conf/"
        if name in EXTRAS:
            return _needs_extra(f"{group}={name}", name)
        return f"{group}={name}: no such option; {nearest(name, options)}allowed: {', '.join(options)}"
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    if key and "not in struct" in str(cause or error):
        given = next((o for o in overrides if key in o.split("=")[0] or o.split("=")[0] in key), key)
        known = _flat_keys(compose("train"))
        meant = nearest(given.split("=")[0].lstrip("+~"), known)
        return f"{given}: there is no key {key!r}; {meant}add a new one with +{key}=..., see all with --cfg job"
    first = re.sub(r"\s+", " ", f"{error} {cause or ''}").strip()
    return first


def _needs_extra(what: str, name: str) -> str:
    return f"{what} needs an extra of this package: {sys.executable} -m pip install -e '{REPOSITORY}[{EXTRAS[name]}]'"


def _flat_keys(node: Mapping[Any, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += _flat_keys(node[key], f"{prefix}{key}.")
    return keys
