"""Contexts of keyed masks: whose a call is, in nested ones, in threads and where a forward is recomputed."""

import copy
import itertools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from keyed_layers import alone, assert_independent, compiled_checkpoint, draw, gradients, in_threads, layer, segment
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_lab.dropout import keys, mask_keys

pytestmark = pytest.mark.usefixtures("source")

# Calls, and layers without a name


def test_a_second_call_is_another_mask() -> None:
    of, x = layer(), torch.ones(64, 1000)
    with mask_keys(1, 2, range(64)):
        masks = [of.draw(x) for _ in range(3)]
    with mask_keys(1, 2, range(64)):
        again = [of.draw(x) for _ in range(3)]
    for first, second in itertools.combinations(masks, 2):
        assert_independent(first, second, 0.5)
    assert all(torch.equal(first, second) for first, second in zip(masks, again, strict=True))


def test_layers_without_a_name_are_numbered_by_first_call() -> None:
    x, (a, b) = torch.ones(64, 1000), (layer(name=None), layer(name=None))
    with mask_keys(1, 2, range(64)):
        first, second = a.draw(x), b.draw(x)
    with mask_keys(1, 2, range(64)):
        swapped, other = b.draw(x), a.draw(x)
    assert torch.equal(first, swapped)
    assert torch.equal(second, other)
    assert_independent(first, second, 0.5)


def test_contexts_nest() -> None:
    of, x = layer(), torch.ones(4, 20)
    with mask_keys(1, 2, range(4)):
        first = of.draw(x)
        with mask_keys(1, 3, range(2)):
            inner = of.draw(x[:2])
        second = of.draw(x)
    with mask_keys(1, 2, range(4)):
        assert torch.equal(of.draw(x), first)
        assert torch.equal(of.draw(x), second)
    assert torch.equal(inner, draw(of, x[:2], step=3))
    assert not keys.active()


def test_a_context_closes_after_an_error() -> None:
    with pytest.raises(ValueError, match="needs"), mask_keys(1, 2, range(4)):
        layer(mask="channel")(torch.ones(4))
    assert not keys.active()


def test_a_context_is_entered_once() -> None:
    context = mask_keys(1, 2, range(4))
    with context:
        pass
    with pytest.raises(RuntimeError, match="a context is entered once; call mask_keys again"), context:
        pass


def test_a_copy_of_a_layer_has_its_masks() -> None:
    of, x = layer(), torch.ones(4, 300)
    assert torch.equal(draw(copy.deepcopy(of), x), draw(of, x))


# Recomputation in backward


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("meanwhile", ["closed", "other"])
def test_checkpointing_recomputes_the_same_mask(meanwhile: str, use_reentrant: bool) -> None:
    parts, x = [segment(0.5, "a"), segment(0.3, "b")], torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    expected = gradients(parts, x, lambda part, y: part(y))
    with mask_keys(9, 9, range(7)) if meanwhile == "other" else nullcontext():
        result = gradients(parts, x, partial(checkpoint, use_reentrant=use_reentrant))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_another_thread_recomputes_the_same_mask(use_reentrant: bool) -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = gradients([part], x, lambda part, y: part(y))[:1]
    with mask_keys(1, 2, range(4)):  # the last step of `gradients`
        loss = checkpoint(part, x, use_reentrant=use_reentrant).square().sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    torch.testing.assert_close(next(part.parameters()).grad, expected, rtol=1e-12, atol=1e-12)


def test_a_layer_called_twice_is_not_recomputed_with_a_wrong_mask() -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    with mask_keys(1, 2, range(4)):
        y = checkpoint(part, checkpoint(part, x, use_reentrant=False), use_reentrant=False)
    with pytest.raises(RuntimeError, match="'00_drop' was called more than once and is recomputed in backward"):
        y.sum().backward()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_a_forward_waits_for_its_backward_while_255_others_are_run(compiled: bool) -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = gradients([part], x, lambda part, y: part(y))[:1]
    torch._dynamo.reset()
    run = compiled_checkpoint if compiled else partial(checkpoint, use_reentrant=False)
    with mask_keys(1, 2, range(4)):  # the last step of `gradients`
        loss = run(part, x).square().sum()
    for step in range(255):
        with mask_keys(3, step, range(5, 9)):
            run(part, x)
    loss.backward()
    torch.testing.assert_close(next(part.parameters()).grad, expected, rtol=1e-12, atol=1e-12)


def test_unkeyed_checkpointing_stays_torchs() -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    part(x).sum().backward()
    expected, x.grad = x.grad, None
    torch.manual_seed(3)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert torch.equal(x.grad, expected)


# Threads


def test_an_open_context_belongs_to_its_thread() -> None:
    """Another thread draws from torch's generator, and the calls there are none of this context."""
    of, x = layer(), torch.ones(4, 300)
    torch.manual_seed(0)
    unkeyed, first, second = of.draw(x), draw(of, x), None
    torch.manual_seed(0)
    with mask_keys(1, 2, range(4)):
        assert alone(keys.active) is False
        assert torch.equal(alone(partial(of.draw, x)), unkeyed)
        assert torch.equal(of.draw(x), first)
        second = alone(partial(draw, of, x, 5, 6))
        assert keys.active()
    assert torch.equal(second, draw(of, x, 5, 6))


def test_contexts_nest_in_each_thread_by_itself() -> None:
    of, x, together = layer(), torch.ones(4, 300), threading.Barrier(2)

    def nested(seed: int, wait: Callable[[], Any]) -> Tensor:
        masks = []
        with mask_keys(seed, 2, range(4)):
            wait()
            masks.append(of.draw(x))
            with mask_keys(seed, 3, range(4)):
                wait()
                masks.append(of.draw(x))
                wait()
            masks.append(of.draw(x))
            wait()
        assert not keys.active()
        return torch.stack(masks)

    expected = [nested(seed, lambda: None) for seed in (1, 2)]
    results = in_threads(*(partial(nested, seed, partial(together.wait, 10)) for seed in (1, 2)))
    assert [torch.equal(*pair) for pair in zip(results, expected, strict=True)] == [True, True]


FORWARDS: dict[str, Callable[..., Tensor]] = {
    "plain": lambda part, x: part(x),
    "checkpointed": partial(checkpoint, use_reentrant=False),
    "checkpointed, reentrant": partial(checkpoint, use_reentrant=True),
}


def trained(seed: int, steps: int, forward: Callable[..., Tensor], wait: Callable[[], Any]) -> Tensor:
    """Weights after some steps of training; each step waits between its forward's layers and before its backward."""
    parts = [segment(0.5, "a"), segment(0.3, "b")]
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = [weight for part in parts for weight in part.parameters()]
    for step in range(steps):
        with mask_keys(seed, step, range(seed, seed + 4)):
            wait()
            y = forward(parts[0], x)
            wait()
            loss = forward(parts[1], y).square().sum()
            wait()
        wait()
        loss.backward()
        wait()
        with torch.no_grad():
            for weight in weights:
                weight -= 1e-3 * weight.grad
                weight.grad = None
    return torch.cat([weight.detach().flatten() for weight in weights])


@pytest.fixture
def initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """`segment` sets torch's seed and draws, which threads can't do at once: they get copies."""
    made = {(p, name): segment(p, name) for p, name in ((0.5, "a"), (0.3, "b"))}
    monkeypatch.setitem(globals(), "segment", lambda p, name: copy.deepcopy(made[p, name]))


@pytest.mark.slow
@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("turns", ["in turns", "freely"])
def test_threads_that_train_side_by_side_end_where_each_would_alone(
    turns: str, forward: str, initialised: None, switching: None
) -> None:
    steps, together = (3, threading.Barrier(2)) if turns == "in turns" else (30, None)
    jobs = [partial(trained, seed, steps, FORWARDS[forward]) for seed in (1, 2)]
    expected = [job(lambda: None) for job in jobs]
    assert not torch.equal(*expected)
    wait = partial(together.wait, 10) if together else lambda: None
    results = in_threads(*(partial(job, wait) for job in jobs))
    assert [torch.equal(*pair) for pair in zip(results, expected, strict=True)] == [True, True]


def checkpointed(seed: int) -> tuple[Tensor, nn.Sequential]:
    """A loss whose backward recomputes a keyed mask."""
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    with mask_keys(seed, 2, range(4)):
        return checkpoint(part, x, use_reentrant=False).square().sum(), part


CANNOT_BE_TOLD = "recomputes a mask here that more than one thread may have drawn: whose it is cannot be told.*[^\\n]$"


def test_a_mask_that_two_threads_may_have_drawn_is_not_recomputed_in_a_third() -> None:
    """Also where the second thread began after the first had ended, which gives both one number of the system."""
    (first, _), _ = alone(partial(checkpointed, 1)), alone(partial(checkpointed, 2))
    with pytest.raises(RuntimeError, match=CANNOT_BE_TOLD):
        alone(first.backward)


def test_a_forward_without_keys_is_not_recomputed_with_the_masks_of_another_thread() -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def unkeyed() -> None:
        checkpoint(part, x, use_reentrant=False).sum().backward()

    alone(partial(checkpointed, 1))
    with pytest.raises(RuntimeError, match=CANNOT_BE_TOLD):
        alone(unkeyed)
