"""Files of configurations, read so that what is wrong in one is told with its name and the line."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml.reader import Reader  # type: ignore[import-untyped]

from dropout_lab.cli import UserError, root_cause

# OmegaConf's reading of YAML (1e-3 is a number, a date is none) by the parser in C, ten times as fast.
Loader = type("Loader", tuple(filter(None, (getattr(yaml, "CSafeLoader", None), get_yaml_loader()))), {})


class ConfigFile(FileConfigSource):
    """Hydra's reader of files that refuses those which it would not read, or read as something else.

    A byte-order mark is none of the text, where Hydra would take the header behind it for a comment.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a file.

        Raises:
            UserError: it can't be read, holds no names with values, or has a header where it does not count.
        """
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            text = text_of(path)
            header = self._get_header_dict(text)
            if header["package"] is None and (late := re.search(r"^[ \t]*#\s*@package\b.*", text, re.MULTILINE)):
                raise ValueError(f"line {_line(text, late.start())}: {late[0]!r} counts in the first line only")
            content = names_in(text)
            if odd := [key for key in content if not isinstance(key, str)]:
                raise ValueError(f"the name {odd[0]!r} is no text; quote it")
            _require_defaults(content.get("defaults", []))
            config = OmegaConf.create(content)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except RecursionError as error:
            raise UserError(f"{path}: a value holds itself, or lies too deep") from error
        except Exception as error:  # whatever a broken file makes of those who read it
            told = with_its_key(error) if isinstance(error, OmegaConfBaseException) else root_cause(error)
            raise UserError(f"{path}: {told}") from error
        return ConfigResult(provider=self.provider, path=f"{self.scheme()}://{self.path}", config=config, header=header)


ConfigFile.__name__ = FileConfigSource.__name__  # by which Hydra knows, in a worker, that a reader is there already
Plugins.instance()  # registers Hydra's own
SourcesRegistry.instance().types[ConfigFile.scheme()] = ConfigFile


def text_of(path: Path) -> str:
    """The text of a file, without its byte-order mark.

    Raises:
        OSError, ValueError: it can't be read, or is no text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(f"line {line}: the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error


def names_in(text: str) -> dict[Any, Any]:
    """The names with values that a YAML text holds; an empty text holds none.

    Raises:
        ValueError: it is no YAML, or holds something else; with the line where the reader has one.
    """
    try:
        content = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_explained(error, text)) from error
    except Exception as error:  # values that their tags don't fit end in errors of any kind
        odd = Reader.NON_PRINTABLE.search(text)
        told = f"line {_line(text, odd.start())}: the character {odd[0]!r} can't be in YAML" if odd else None
        raise ValueError(told or root_cause(error)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not names with values")
    return content


def written_out(node: Any, key: str = "") -> Any:
    """Plain containers in which no text would be looked up elsewhere, in this machine's environment for one.

    Raises:
        ValueError: with the key of one that would.
    """
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"{key}: {node} is taken from elsewhere, and not written out")
    if isinstance(node, dict):
        for name, value in node.items():
            written_out([str(name), value], f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            written_out(value, key)
    return node


def with_its_key(error: Exception) -> str:
    """An error of OmegaConf, and its cause, in one line with the key that it is about in front."""
    cause = error.__cause__
    text = re.sub(r"^\s*(full_key|reference_type|object_type)\b:?.*", "", f"{error}\n{cause or ''}", flags=re.MULTILINE)
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    told = " ".join(text.split())
    return f"{key}: {told}" if key and key not in told else told


def _require_defaults(entries: object) -> None:
    """Refuse what is no defaults list."""
    if not isinstance(entries, list):
        raise ValueError(f"defaults: {entries!r} is no list of files")
    for entry in entries:
        pairs = entry.items() if isinstance(entry, dict) else [(entry, None)]
        parts = [(group, name if isinstance(name, list) else [name or ""]) for group, name in pairs]
        if len(parts) != 1 or not all(isinstance(part, str) for part in [parts[0][0], *parts[0][1]]):
            raise ValueError(f"defaults: {entry!r} is none of NAME, GROUP: NAME and GROUP: [NAME, ...]")


def _explained(error: yaml.MarkedYAMLError, text: str) -> str:
    """An error of the parser with the line that it is in, and where that begins what can't be read."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}: " if mark else ""
    context = f" {error.context}" if error.context else ""
    if context and error.context_mark and error.context_mark.line != mark.line:
        context += f" that begins in line {error.context_mark.line + 1}"
    tab = mark and re.match(r" *\t", [*text.split("\n"), ""][mark.line])
    return f"{where}{error.problem}{context}" + "; indent with spaces, not with tabs" * bool(tab)


def _line(text: str, position: int) -> int:
    """The number of the line that a position in a text is in."""
    return text.count("\n", 0, position) + 1
