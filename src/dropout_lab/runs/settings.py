"""Settings of a run: which of them count for what, in what two runs differ, and all of them to be read at a glance."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.replicates import keys, values
from dropout_lab.runs.start_from import READ

# Each list goes on from the one before: what does not count there does not count here either.
NOT_OF_THE_CONFIGURATION = ("hydra", "run", "paths", "resume")  # where a run lies, and how it was started
NOT_OF_THE_RESULT = (*NOT_OF_THE_CONFIGURATION, "logger", "tags", "notes")  # nor what is kept of it elsewhere
OF_THE_CODE = ("layers", "columns", "noise", "data_digest")  # no settings, but what followed from them
NOT_OF_THE_STRATEGY = (
    *NOT_OF_THE_RESULT,
    *OF_THE_CODE,
    "seed",
    "arm",
    "sweep",
    "replicates",
)  # nor repetitions, and names


def ignored_by_none(config: Mapping[str, Any] | DictConfig) -> list[str]:
    """The keys that ``dropout=none`` takes so that sweeps match, and ignores, as it drops nothing: every p."""
    places = ("", *(f"more_dropout.{name}." for name in config.get("more_dropout") or ()))
    return [f"{place}{key}.p" for place in places for key in ("dropout", "placement")]


def summary(config: Mapping[str, Any]) -> str:
    """A line for each group of a configuration: what it builds, and its settings but those that are null.

    Args:
        config: resolved, in plain containers.
    """
    left_out = (*NOT_OF_THE_CONFIGURATION, *OF_THE_CODE)
    groups = {key: value for key, value in config.items() if isinstance(value, Mapping) and key not in left_out}
    single = {key: value for key, value in config.items() if not isinstance(value, Mapping) and key not in OF_THE_CODE}
    rows = [("", _line(single))]
    for group, node in groups.items():
        if "_target_" in node:
            rows.append((group, _line(node)))
        else:
            rows += [(f"{group}.{name}", _line(part)) for name, part in node.items() if isinstance(part, Mapping)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {line}" for name, line in rows)


def differing_keys(configs: Iterable[Mapping[str, Any]], irrelevant: Iterable[str] = ()) -> list[str]:
    """The keys whose values are not the same in all configs, apart from those that never tell strategies apart.

    Of keys that always change together (``placement.p: ${dropout.p}``) only the first is named, and none that changes
    with the seed (``data.seed: ${seed}``, ``start_from=runs/${seed}``), or with another key of its replicates.
    """
    configs = list(configs)
    flats = [of_the_strategy(config) for config in configs]
    written: dict[Any, Any] = {}  # the first value of a run that is read, by the key and all that is written alike
    for config, leaves in zip(configs, flats, strict=True):
        group = (config.get("run") or {}).get("group")
        leaves |= {key: written.setdefault((key, group), leaves[key]) for key in READ if group and key in leaves}
    repeated = [values(config) for config in configs]
    seen = {tuple(repr(one.get(key)) for one in repeated) for key in {key for one in repeated for key in one}}
    differing = []
    for key in dict.fromkeys(key for leaves in flats for key in leaves):
        found = tuple(repr(leaves.get(key)) for leaves in flats)
        if len(set(found)) > 1 and found not in seen and key not in irrelevant:
            seen.add(found)
            differing.append(key)
    return differing


def of_the_strategy(config: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a config that can tell strategies apart; the run's own folder, as in a checkpoint path, can not."""
    own = (config.get("run") or {}).get("dir")
    leaves = flat({key: value for key, value in config.items() if key not in NOT_OF_THE_STRATEGY})
    repeated = keys(config)
    return {
        key: value
        for key, value in leaves.items()
        if key not in repeated and not (own and isinstance(value, str) and own in value)
    }


def _line(node: Mapping[str, Any]) -> str:
    built = str(node.get("_target_", "")).rpartition(".")[2]
    settings = [
        f"{key}={value}"
        for key, value in flat(node).items()
        if value not in (None, [], {}, "") and not key.rpartition(".")[2].startswith("_")
    ]
    return " ".join([*([built] if built else []), *settings])
