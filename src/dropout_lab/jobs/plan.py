"""The plan of a command line: every job of a sweep, composed and checked before the first one starts.

Imports neither torch nor Lightning, so that a typo is answered at once.
"""

import importlib.util
import pkgutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError
from dropout_lab.jobs.build_errors import unlocatable
from dropout_lab.jobs.composition import Composer
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.jobs.devices import rank
from dropout_lab.jobs.job import Job, checked_jobs, let_hydra_be_read
from dropout_lab.jobs.overrides import explain_error, needs_extra, parse_arguments, parse_overrides, quoted

SILENT = ("hydra.output_subdir=null", "hydra/job_logging=none")  # for all processes of a job but the first


@dataclass(frozen=True, eq=False)
class Plan:
    """The jobs that a command line asks for.

    Attributes:
        multirun: whether they are a sweep.
        jobs: composed and checked; empty where only the sweeper knows (optuna).
        folder: of the run, or of the sweep.
        base: the configuration of the sweep as a whole, or of the run, with its node ``hydra``.
        composer: of its jobs.
        shared: the words that all jobs of the sweep have, also after some of the jobs were left out.
        example: where jobs is empty, one with the first of the values that each key may take.
        names_folder: whether the command line says where a run lies.
    """

    multirun: bool
    jobs: list[Job]
    folder: Path
    base: DictConfig
    composer: Composer
    shared: frozenset[str] = frozenset()
    example: Job | None = None
    names_folder: bool = False

    @property
    def known(self) -> list[Job]:
        """The jobs that are known before they run."""
        return self.jobs or [job for job in [self.example] if job is not None]

    @property
    def folders(self) -> list[Path]:
        """The run folders of the jobs."""
        return [self.folder / str(number) for number in range(len(self.jobs))] if self.multirun else [self.folder]

    @property
    def launcher(self) -> str:
        """The option of ``hydra/launcher`` that starts the jobs."""
        return str(self.base.hydra.runtime.choices["hydra/launcher"])

    def without(self, numbers: Collection[int]) -> "Plan":
        """The plan of the sweep that leaves these of its jobs out; the others are numbered anew."""
        jobs = [job for number, job in enumerate(self.jobs) if number not in numbers]
        return replace(self, jobs=jobs)


def plan(arguments: Sequence[str]) -> Plan:
    """Compose and check everything that the arguments ask for, without making a folder.

    Raises:
        UserError: the first thing that is wrong.
    """
    options = parse_arguments(list(arguments))
    words: list[str] = options.overrides
    files: list[str] = []
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        try:
            parsed = parse_overrides(words)
            _require_sweepable(parsed, options.multirun)
            about, own = _about_and_own(words, parsed)
            composer = Composer([*about, *(SILENT if rank() else ())])
            chosen = [word for word in composer.files(own) if not composer.parsed(word).is_sweep_override()]
            files = [*composer.about, *chosen]
            base = _base(composer, own, options.multirun)
            _require_launcher(base, options.multirun)
            if options.multirun:
                _require_sweeper(base, parsed)
            folder = _settle_folder(composer, base, options.multirun)
            base = _base(composer, own, options.multirun)
            if not options.multirun:
                named = any(o.key_or_group == "hydra.run.dir" for o in parsed)
                return Plan(False, checked_jobs(composer, [own], base), folder, base, composer, names_folder=named)
            if not _knows_its_jobs(base):
                (example,) = checked_jobs(composer, [_one_of_each(base.hydra.sweeper, own)], base)
                return Plan(True, [], folder, base, composer, example=example)
            jobs = instantiate(base.hydra.sweeper).jobs(own, GlobalHydra.instance().config_loader())
            if not jobs:
                raise UserError("this sweep has no jobs: one of its ranges is empty, or a glob(...) matches nothing")
            checked = checked_jobs(composer, jobs, base)
            shared = frozenset.intersection(*(frozenset(job.words) for job in checked)) if len(checked) > 1 else ()
            return Plan(True, checked, folder, base, composer, frozenset(shared))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain_error(error, words, files)) from error


def as_meant(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that shows a configuration, each as Hydra takes it."""
    options = parse_arguments(list(arguments))
    if not (options.cfg or options.help or options.info):
        return list(arguments)
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        about: list[str] = []
        try:
            about, own = _about_and_own(options.overrides, parse_overrides(options.overrides))
            meant = dict(zip(own, Composer(about).own(own)[1], strict=True))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain_error(error, options.overrides, about)) from error
    return [meant.get(word, word) for word in arguments]


def _about_and_own(words: Sequence[str], overrides: Sequence[Override]) -> tuple[list[str], list[str]]:
    """Words about Hydra itself, and those about a job."""
    about = [word for word, override in zip(words, overrides, strict=True) if override.is_hydra_override()]
    return about, [word for word in words if word not in about]


def _require_sweepable(overrides: Sequence[Override], multirun: bool) -> None:
    """Refuse several values where there is one run, and of what is not a job's own."""
    for override in overrides:
        if override.is_sweep_override() and not multirun:
            raise UserError(f"{override.input_line}: several values make a sweep; add -m to run one job for each")
        if override.is_sweep_override() and override.is_hydra_override():
            raise UserError(
                f"{override.input_line}: is of the sweep as a whole and has one value; start a sweep for each"
            )
        if override.key_or_group == "hydra.mode":
            raise UserError("hydra.mode: add -m for a sweep, leave it out for a run")


def _base(composer: Composer, words: Sequence[str], multirun: bool) -> DictConfig:
    """The configuration of the run, or of the sweep as a whole; then values are left out that only some jobs have."""
    if not multirun:
        return composer.config(words)
    try:
        return composer.config(words, RunMode.MULTIRUN)
    except (HydraException, OmegaConfBaseException):
        base = composer.config(composer.files(words), RunMode.MULTIRUN)
        base.hydra.overrides.task = list(words)
        return base


def _require_launcher(base: DictConfig, multirun: bool) -> None:
    """Refuse a launcher where there is one run, and one whose packages are not installed."""
    for part in ("launcher", "sweeper"):
        if not isinstance(base.hydra[part], DictConfig):
            raise UserError(f"hydra.{part}={base.hydra[part]}: choose an option, hydra/{part}=NAME")
    launcher = base.hydra.runtime.choices["hydra/launcher"]
    if not multirun and launcher != "basic":
        raise UserError(f"hydra/launcher={launcher}: launchers start the jobs of a sweep; add -m")
    if launcher.startswith("submitit") and importlib.util.find_spec("submitit") is None:
        raise UserError(needs_extra(f"hydra/launcher={launcher}", launcher))


def _require_sweeper(base: DictConfig, overrides: Sequence[Override]) -> None:
    """Refuse what a sweeper does not understand, and run folders that nobody would find."""
    if OmegaConf.to_container(base.hydra.sweep)["subdir"] != "${hydra.job.num}":  # type: ignore[index, call-overload]
        raise UserError("hydra.sweep.subdir: run folders have the number of their job; leave it out")
    for override in overrides:
        if isinstance(override.value(), IntervalSweep) and _knows_its_jobs(base):
            raise UserError(
                f"{override.input_line}: an interval is for a search, sweep=optuna; a sweep has a,b or range(a,b)"
            )


def _knows_its_jobs(base: DictConfig) -> bool:
    """Whether the jobs of a sweep are known before it starts; a search decides as it goes."""
    target = str(base.hydra.sweeper.get("_target_"))
    try:
        return hasattr(pkgutil.resolve_name(target), "jobs")
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"hydra.sweeper.{unlocatable(target)}") from error


def _settle_folder(composer: Composer, base: DictConfig, multirun: bool) -> Path:
    """Settle where the run or the sweep lies: two processes must not each ask the clock."""
    let_hydra_be_read(base)
    node, mode = (base.hydra.sweep, RunMode.MULTIRUN) if multirun else (base.hydra.run, RunMode.RUN)
    folder = Path(node.dir).absolute()
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    composer.settle([f"{key}={quoted(str(folder))}", f"hydra.mode={mode.name}"])
    return folder


def _one_of_each(sweeper: DictConfig, words: Sequence[str]) -> list[str]:
    """The overrides of a job that the sweeper may come up with: each key has the first of its values."""
    overrides = parse_overrides(words)
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
