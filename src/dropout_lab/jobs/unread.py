"""Settings that nothing reads, as their file puts them at a place in the configuration of their own."""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from dropout_lab.cli import UserError, nearest
from dropout_lab.jobs.config_files import ConfigFile, Loader, text_of

GLOBAL = "# @package _global_"  # the first line of a file that sets keys of several sections

Merged = Iterable[tuple[ResultDefault, ConfigResult]]  # the files of a configuration, in order


def require_read(config: DictConfig, words: Sequence[Override], main: ConfigResult, files: Merged) -> None:
    """Refuse a file that sets a key at the top level which nothing reads.

    What is read is a key of the main file or a section of one of its groups, or is used by an interpolation, or is
    added by a word.

    Args:
        config: as it is composed of the files, its node ``hydra`` included.
        words: of all jobs that are made of them.
        main: conf/train.yaml.
        files: of which the configuration is composed.

    Raises:
        UserError: the first of its keys that nothing reads, and the file that sets it.
    """
    groups = [each for each in main.defaults_list or [] if isinstance(each, GroupDefault) and not each.package]
    sections = {str(each.group).partition("/")[0] for each in groups if each.value is not None}
    added = [word.package or word.key_or_group for word in words if word.is_add() or word.is_force_add()]
    known = {*main.config, *sections, "more_dropout", "verdict"} | {re.split("[./]", key)[0] for key in added}
    values: Any = OmegaConf.to_container(config)
    for key in [key for key in values if key not in known]:
        others = {name: value for name, value in values.items() if name != key}
        text = f"{others} {' '.join(word.input_line or '' for word in words)}"
        if not re.search(rf"\$\{{[^}}]*\b{re.escape(str(key))}\b", text) and (found := setter(files, str(key))):
            raise UserError(_unread(str(key), found, sections, known))


class Setter(NamedTuple):
    """A file that sets a key.

    Attributes:
        group: of conf/ that it is an option of.
        header: the package that its first line names, or None.
        package: the key below which its settings are; empty where they are at the top level.
    """

    path: Path
    line: int | None
    group: str
    header: str | None
    package: str

    @property
    def place(self) -> str:
        """The file and the line in it, for a person."""
        return f"{self.path}, line {self.line}" if self.line else str(self.path)


def setter(files: Iterable[tuple[ResultDefault, ConfigResult]], key: str) -> Setter | None:
    """The last of the files, in the order in which they are merged, that sets a key or something below it."""
    found = None
    wanted = key.split(".")
    for default, read in files:
        above = (default.package or "").split(".") if default.package else []
        shared = min(len(above), len(wanted))
        if above[:shared] == wanted[:shared] and _has(OmegaConf.to_container(read.config), wanted[shared:]):
            name = str(default.config_path)
            path = Path(read.path.removeprefix(f"{ConfigFile.scheme()}://")) / f"{name}.yaml"
            line = _line_of(wanted[shared:], text_of(path)) if path.is_file() else None
            found = Setter(path, line, name.rpartition("/")[0], read.header["package"], ".".join(above))
    return found


def _unread(key: str, found: Setter, sections: Collection[str], known: Collection[str]) -> str:
    """One line about a file with settings that nothing reads."""
    if found.package and found.header:
        return f"{found.path}: nothing reads what '# @package {found.header}' makes of it; write {GLOBAL!r} instead"
    if found.package:
        return f"{found.path}: nothing reads its settings as those of {key!r}; its first line has to be {GLOBAL!r}"
    if found.group.partition("/")[0] in sections:
        return f"{found.place}: nothing reads {key!r} outside of {found.group!r}; leave the line {GLOBAL!r} out"
    return (
        f"{found.place}: nothing reads {key!r}; {nearest(key, sorted(known))}a key of your own is used by ${{{key}}}, "
        "or stands in conf/train.yaml as well"
    )


def _line_of(keys: Sequence[str], text: str) -> int | None:
    """The line of a YAML text that has a key, given with those above it."""
    node, line = yaml.compose(text, Loader), None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        name, node = next(((name, value) for name, value in pairs if name.value == key), (None, None))
        line = name.start_mark.line + 1 if name else line
    return line


def _has(node: Any, keys: Sequence[str]) -> bool:
    """Whether nested names have one, given with those above it."""
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
