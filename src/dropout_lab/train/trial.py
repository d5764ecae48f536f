"""A trial: one training step of a job and one measurement, on two rows, so that what can't be trained is known at once.

What a trial changes in a network is put back: gradients, buffers, modes, torch's random numbers.
"""

import logging
import pickle
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dropout_lab.dropout import mask_keys
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.dropout.placement.install import layers_of
from dropout_lab.modules.base import Module

log = logging.getLogger(__name__)

ROWS = 2
LONGEST, LARGEST = 10.0, 4e9  # seconds and bytes that a trial may take; what would take more is not tried
TIMES_A_PASS = 6  # that a step and a measurement take, as long as a pass in eval mode


def require_step(module: Module, trained: Any, measured: Any, keyed: bool, quiet: bool = False) -> None:
    """Take a step with a module and measure it, as training will.

    Args:
        module: with its network, on the CPU.
        trained: a batch of ``ROWS`` rows as training gives it to the module.
        measured: one as evaluation does.
        keyed: draw the masks that training would.
        quiet: refuse random numbers that the network draws besides those of keyed masks.

    Raises:
        ValueError: the loss is no number to be minimised, the network drops something in evaluation, draws random
            numbers that it should not, or the scores are not those of the columns, a row each. Whatever else the
            network or the module raises comes through.
    """
    bytes_ = sum(each.numel() * each.element_size() for each in module.parameters())
    if 3 * bytes_ > LARGEST:  # weights, gradients, and what lies between them
        log.warning("not tried before the jobs start, as it is too large: a step of %s", type(module.net).__name__)
        return
    with _put_back(module):
        x = module.inputs(measured)
        start = time.monotonic()
        first = _outputs(module, x)
        if (time.monotonic() - start) * TIMES_A_PASS > LONGEST:
            log.warning("not tried before the jobs start, as it takes long: a step of %s", type(module.net).__name__)
            return
        if other := next((name for name, out in _outputs(module, x).items() if not _same(out, first.get(name))), None):
            raise ValueError(f"two passes in eval mode differ from {other} on: it drops or draws something there, too")
        _measure(module, measured)
    # In the modes it was given in, as Lightning leaves them: a teacher stays in eval mode.
    with _put_back(module), _refusing_draws(module.net) if quiet else nullcontext():
        _train(module, trained, keyed)


def _outputs(module: Module, x: Any) -> dict[str, Any]:
    """What each module of a network gives in eval mode, by its path, in the order of their calls."""
    found: dict[str, Any] = {}
    names = {each: name or type(each).__name__ for name, each in module.net.named_modules()}
    module.eval()

    def note(each: nn.Module, _: Any, out: Any) -> None:
        found.setdefault(names[each], out.clone() if isinstance(out, Tensor) else None)  # it may be changed in place

    with intercepting(names, after=note), torch.no_grad():
        module.predict(x)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal, as far as they are tensors; NaN is another matter."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return True
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _measure(module: Module, batch: Any) -> None:
    """Score a prediction; refuse scores that are not one a row, or lack a column."""
    with torch.no_grad():
        scores = module.scores(module.predict(module.inputs(batch)), batch)
    for name, rows in scores.items():
        if len(rows) != len(next(iter(scores.values()))) or rows.ndim > 2:
            raise ValueError(f"its score {name!r} has the shape {tuple(rows.shape)}: must be (rows,) or (rows, k)")
    means = {name: rows.double().mean(0).tolist() for name, rows in scores.items()}
    if missing := {column.key for column in module.columns} - module.summarize(means).keys():
        raise ValueError(f"its column {min(missing)!r} has no number; it measures {', '.join(module.summarize(means))}")


def _train(module: Module, batch: Any, keyed: bool) -> None:
    """Minimise the loss of a batch."""
    passes: list[Any] = []
    counted = intercepting([module.net], after=lambda *_: passes.append(None))
    with mask_keys(0, 0, range(len(module.inputs(batch)))) if keyed else nullcontext(), counted:
        result = module.loss(batch)
        loss = module.penalized(result[0] if isinstance(result, tuple) else result)
    if len(passes) > module.passes:
        name, times = type(module).__name__, len(passes)
        raise ValueError(f"the loss of {name} calls its network {times} times: set passes = {times} in that class")
    if loss.ndim or not loss.requires_grad:
        raise ValueError("loss: must be one number for a batch, which depends on the weights")
    torch.autograd.backward(loss)


@contextmanager
def _refusing_draws(net: nn.Module) -> Iterator[None]:
    """Refuse random numbers that a network draws within, by what it leaves of the generators, and name the module."""
    paths = {each: path for path, each in net.named_modules()}
    strategy = {each for layer in layers_of(net) for each in layer.modules()}
    before: list[Any] = []  # the generators when each of the modules was entered that have not ended
    told: list[nn.Module] = []

    def enter(*_: Any) -> None:
        before.append(_generators())

    def leave(module: nn.Module, *_: Any) -> None:
        was, now = before.pop(), _generators()
        if was != now:
            before[:] = [now] * len(before)  # of those around it none has drawn that
            if module not in strategy:
                told.append(module)

    with intercepting(paths, before=enter, after=leave):
        yield
    if told:
        raise ValueError(
            f"the network draws random numbers of its own in {paths[told[0]] or 'its forward'} "
            f"({type(told[0]).__name__}), which no strategy reaches; other_noise=keep takes it as it is"
        )


def _generators() -> tuple[Any, ...]:
    """The states of the generators that a network may draw from: torch's, numpy's, Python's."""
    numpy = np.random.get_state(legacy=False)
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(numpy), random.getstate()


@contextmanager
def _put_back(module: nn.Module) -> Iterator[None]:
    """Leave a module and torch's random numbers as they were."""
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    modes = {each: each.training for each in module.modules()}
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers.get(name, value))
        for each, training in modes.items():
            each.training = training
        module.zero_grad(set_to_none=True)
