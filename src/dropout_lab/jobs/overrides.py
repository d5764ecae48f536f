"""Words of a command line: which of them Hydra answers, how overrides are read, and what is wrong with one."""

import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from dropout_lab.cli import UserError, in_one_line, nearest
from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.jobs.config_files import with_its_key
from dropout_lab.jobs.signatures import arguments

ASKING = ("help", "hydra_help", "cfg", "info", "shell_completion", "package", "resolve")  # options that Hydra answers
OTHERS = ("config_dir", "config_path", "config_name", "experimental_rerun")  # what they bring would not be checked
USAGE = (
    "[--multirun] [--cfg job|hydra|all] [--resolve] [--package PACKAGE] [--info [WHAT]] "
    "[--shell-completion install=SHELL] [--help] [--hydra-help] [--version] [key=value ...]"
)
OF_THE_LAB = {  # keys of a section that are not for what it describes
    "optimizer": ("match", "no_decay"),
    "lr_scheduler": ("interval",),
}
WHOLE = "training"  # in lr_scheduler: the length of the training, in the unit of its interval
FROM_CODE = {  # arguments of what a section describes that are not for the configuration to give
    "model": ("input_shape", "num_classes"),
    "module": ("net", "seed", "keyed", "monte_carlo_samples"),
    "optimizer": ("params",),
    "lr_scheduler": ("optimizer",),
    "dropout_schedule": ("p", "t"),
    "trainer": ("logger", "callbacks", "plugins", "default_root_dir"),
}
PARTS = {"callbacks": "callback", "logger": "logger"}  # groups of which several options are chosen
EXTRAS = {"optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "timm": "timm"}  # pyproject.toml


def only_asks(arguments: Sequence[str]) -> bool:
    """Whether a command line only asks and runs nothing: --help, --cfg job, --info, --shell-completion, ...

    Raises:
        UserError: an option that there is not, or one of Hydra's that is none here.
    """
    given = vars(parse_arguments(arguments))
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
    """The words of a command line in an order that Hydra understands: no -m between or behind overrides."""
    overrides = parse_arguments(arguments).overrides
    return sorted(arguments, key=lambda word: word not in overrides)


def quoted(text: str) -> str:
    """A value as an override spells it, whatever characters it has."""
    # A backslash counts where it stands before a quote, and only there.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """The options and overrides of a command line, as Hydra's parser has them; a UserError for what it has not."""
    parser = in_one_line(get_args_parser())
    parser.usage = USAGE
    return parser.parse_intermixed_args(arguments)


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Overrides as Hydra, which has to be initialized, understands them: its loader knows what a glob stands for."""
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(words))


def explain_error(error: Exception, overrides: Sequence[str], files: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf.

    Args:
        error: as it was raised.
        overrides: the words that were composed.
        files: those of them that choose files, and those about Hydra, which may name folders to search.
    """
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override; write key=value, quote values with special characters: key='a b'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        listed = re.match(r"In '(?!train':)([^']+)':", str(error))
        where = f" (in the defaults list of {listed[1]}.yaml)" if listed else ""
        group, _, name = error.missing_cfg_file.rpartition("/")
        loader = GlobalHydra.instance().config_loader()
        options = loader.get_group_options(group, ObjectType.CONFIG, "train", list(files))
        if not group:
            return f"{name}: no such configuration in conf/{where}"
        if group.startswith("hydra/") and name in EXTRAS:
            return needs_extra(f"{group}={name}", name)
        return f"{group}={name}: no such option; {nearest(name, options)}allowed: {', '.join(options)}{where}"
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    if key and "not in struct" in str(cause or error):
        keys = {o.split("=")[0].lstrip("+~"): o for o in overrides}
        within = [o for name, o in keys.items() if name.startswith(f"{key}.")]
        given = keys.get(key) or next(iter([*within, *(o for name, o in keys.items() if name in key)]), key)
        if key.count(".") == 1 and key.partition(".")[0] in PARTS and within:
            return no_such_part(*key.split("."))
        named = given.split("=")[0].lstrip("+~")
        meant = nearest(named, _known_keys(compose("train", list(files)), key if "." in key else named))
        return f"{given}: there is no key {key!r}; {meant}add a new one with +{key}=..., see all with --cfg job"
    return with_its_key(error)


def no_such_part(group: str, name: str) -> str:
    """One line for settings of a callback or logger that is not there."""
    return (
        f"{group}.{name} has settings, but there is no such {PARTS[group]}; add it, '{group}=[default,{name}]', "
        f"or leave its settings out, '~{group}.{name}'"
    )


def needs_extra(what: str, name: str) -> str:
    """One line for an option whose packages are not installed, with the command that installs them."""
    return f"{what} needs an extra of this package: {sys.executable} -m pip install -e '{REPOSITORY}[{EXTRAS[name]}]'"


def _known_keys(config: DictConfig, key: str) -> list[str]:
    """Keys that may be meant instead of one: those of a configuration, and what else is taken where it would be."""
    keys = _flat_keys(config)
    parent = next(iter(get_close_matches(key.rpartition(".")[0], keys, n=1)), "")  # itself, where it is there
    node = OmegaConf.select(config, parent, throw_on_resolution_failure=False) if parent else None
    return [*keys, *(f"{parent}.{name}" for name in sorted(taken(node, parent)))]


def taken(node: Any, section: str) -> frozenset[str]:
    """Keys that a section takes, whether its file happens to list them or not; none where it describes nothing."""
    if not isinstance(node, DictConfig):
        return frozenset()
    names = arguments(str(node.get("_target_", ""))).difference(FROM_CODE.get(section, ()))
    return names.union(OF_THE_LAB.get(section, ()))


def _flat_keys(node: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Every key of a configuration, as "optimizer.lr", without resolving anything."""
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += _flat_keys(node[key], f"{prefix}{key}.")
    return keys


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as {"optimizer.lr": 0.1, ...}."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
