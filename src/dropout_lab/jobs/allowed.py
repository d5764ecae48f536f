"""What may be built for a run folder, whoever wrote it: a list that the ``_target_``s of its configuration are held to.

A name is imported only if it is that of a module in a package on the list, as importing runs a module, and what it
stands for is built only if it is defined there. What a user composes from conf/ and a command line is not restricted.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from dropout_lab.cli import UserError, root_cause

_MODULE, _CALLBACK, _FUNCTION = "torch.nn.Module", "lightning.pytorch.callbacks.Callback", "types.FunctionType"
_LOGGER, _CHECKPOINT = "lightning.pytorch.loggers.Logger", "lightning.pytorch.callbacks.Checkpoint"
_LEARNING = (_MODULE, "torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler")
_TRAINING = ("Trainer", "callbacks.Callback", "loggers.Logger", "strategies.Strategy", "profilers.Profiler")

# A package, or a module, with the bases of those of its classes that may be built; or one class or function, with none.
# A fork adds its own: ("my_package.models", ("torch.nn.Module",)), ("my_package.nets.make", ()).
ALLOWED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("dropout_lab.models", (_MODULE, _FUNCTION)),  # which makes a network
    ("dropout_lab.modules", (_MODULE,)),
    ("dropout_lab.data", ("lightning.pytorch.LightningDataModule",)),
    ("dropout_lab.dropout", (_MODULE,)),
    ("dropout_lab.dropout.none", ()),
    ("dropout_lab.dropout.Placement", ()),
    *(
        (f"dropout_lab.dropout.schedules.{name}", ())
        for name in ("constant", "cosine", "curriculum", "early", "late", "linear")
    ),
    ("dropout_lab.activations", (_CALLBACK,)),
    ("dropout_lab.train", (_CALLBACK, _MODULE)),  # modules that read runs
    ("dropout_lab.train.recipes.warmup.warmup_cosine", ()),
    ("dropout_lab.runs.checkpoints", (_CHECKPOINT,)),
    ("dropout_lab.runs.loggers", (_LOGGER,)),
    ("dropout_lab.runs.wandb_logger", (_LOGGER,)),
    ("torch.nn", _LEARNING),
    ("torch.optim", _LEARNING),
    ("torchvision", (_MODULE,)),
    ("lightning", tuple(f"lightning.pytorch.{name}" for name in _TRAINING)),
    ("datetime.timedelta", ()),
)


def require_allowed(config: Any, where: object) -> None:
    """Refuse a configuration of which any part, built today or not, describes something that is not on the list.

    Args:
        config: a configuration, or plain containers.
        where: whose it is, for the error.

    Raises:
        UserError: with the key, and how the list is extended.
    """
    plain = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    for key, target in _targets(plain):
        if (why := _why_not(target)) is not None:
            raise UserError(
                f"{where}: {key}={target}: {why}; of what a run folder names only modules, optimizers, callbacks and "
                f"the like of {', '.join(path for path, kinds in ALLOWED if kinds)} are built; for code that you trust "
                f"add a line to ALLOWED in {__file__}"
            )


def without_network(config: DictConfig, where: object) -> DictConfig:
    """A configuration that is on the list, as it is built without a network: the run's checkpoint has the weights.

    Raises:
        UserError: as `require_allowed`; a model that a network would have to describe.
    """
    require_allowed(config, where)
    plain = OmegaConf.to_container(config)
    if (hub := next((text for text in _texts(plain) if re.match(r"hf[-_]hub:", text)), None)) is not None:
        raise UserError(f"{where}: {hub}: what a run folder names is built without a network")
    return OmegaConf.create(_without_fetching(plain))  # type: ignore[no-any-return]


def _without_fetching(node: Any) -> Any:
    """Plain containers in which no weights are asked for that timm would download."""
    if isinstance(node, dict):
        return {key: False if key == "pretrained" else _without_fetching(value) for key, value in node.items()}
    return [_without_fetching(value) for value in node] if isinstance(node, list) else node


def require_values(words: Sequence[Any], where: object) -> None:
    """Refuse words of a run folder that do anything but choose options of conf/ and set values.

    Raises:
        UserError: with the first such word.
    """
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
            value = None if override.is_delete() else override.value()
        except (HydraException, TypeError, AttributeError):
            value = override = None
        if override is None or override.is_sweep_override():
            why = "is no key=value"
        elif re.search(r"\bhydra\b", f"{override.key_or_group} {override.package or ''}"):
            why = "is about Hydra itself"
        elif any("${" in re.sub(r"\$\{[\w.]+\}", "", text) for text in _texts(value)):
            why = "takes a value from elsewhere"
        elif "." not in override.key_or_group and any(".." in text.split("/") for text in _texts(value)):
            why = "is no option of conf/"
        else:
            require_allowed({override.key_or_group: value}, where)
            continue
        raise UserError(
            f"{where}: run.overrides: {word}: {why}: of another run's words only those that set values count"
        )


def _texts(node: Any) -> Iterator[str]:
    """Every text within plain containers, keys among them."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield str(name)
            yield from _texts(value)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield str(node)


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` within plain containers, each with its key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            inner = f"{key}.{name}".lstrip(".")
            if str(name).rpartition(".")[2] == "_target_":
                yield inner, value
            yield from _targets(value, inner)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for number, value in enumerate(node):
            yield from _targets(value, f"{key}[{number}]")


def _why_not(target: Any) -> str | None:
    """Why what a target names is not built; None where it is on the list."""
    place, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    near = [
        (path, kinds) for path, kinds in ALLOWED if target == path or (kinds and f"{place}.".startswith(f"{path}."))
    ]
    if not near or any(part.startswith("_") for part in target.split(".")):  # no module __main__, and nothing private
        return "it is not on the list"
    try:
        found = getattr(importlib.import_module(place), name)
        same = get_object(target) is found  # as it will be looked up
    except Exception as error:  # whatever a module raises that is imported
        return f"it can't be imported: {root_cause(error)}"
    defined_in, called = getattr(found, "__module__", None) or "", getattr(found, "__qualname__", None)
    if not (same and called == name and f"{defined_in}.".startswith(f"{place}.")):
        return f"it is not defined in {place}"
    for path, kinds in near:
        bases = tuple(pkgutil.resolve_name(kind) for kind in kinds)
        if target == path or (issubclass(found, bases) if isinstance(found, type) else isinstance(found, bases)):
            return None
    return "it is of another kind"
