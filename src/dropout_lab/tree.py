"""A configuration to be read at a glance, as a single run prints it at its start, and flat, to be compared."""

from collections.abc import Mapping
from typing import Any

LEFT_OUT = ("run", "paths", "layers", "hydra")  # where things lie, and what a table of its own shows


def tree(config: Mapping[str, Any]) -> str:
    """A line for each group: what it builds, and its settings but those that are null.

    Args:
        config: resolved, in plain containers.
    """
    groups = {key: value for key, value in config.items() if isinstance(value, Mapping) and key not in LEFT_OUT}
    rows = [("", _line({key: value for key, value in config.items() if not isinstance(value, Mapping)}))]
    for group, node in groups.items():
        if "_target_" in node:
            rows.append((group, _line(node)))
        else:
            rows += [(f"{group}.{name}", _line(part)) for name, part in node.items() if isinstance(part, Mapping)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {line}" for name, line in rows)


def _line(node: Mapping[str, Any]) -> str:
    built = str(node.get("_target_", "")).rpartition(".")[2]
    settings = [
        f"{key}={value}"
        for key, value in flat(node).items()
        if value not in (None, [], {}, "") and not key.rpartition(".")[2].startswith("_")
    ]
    return " ".join([*([built] if built else []), *settings])


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as {"optimizer.lr": 0.1, ...}."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
