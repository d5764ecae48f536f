"""Keyed masks are a pure function of (seed, layer, step, row, element), and of nothing else."""

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_lab.dropout import Dropout, mask_keys, philox
from dropout_lab.dropout import keys as key_module
from dropout_lab.dropout.layer import MASKS, NOISES, SCALINGS

Rows = Sequence[int] | Tensor
with_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@pytest.fixture(params=["plain", "native"] if philox._native else ["plain"], autouse=True)
def generator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every law holds for both ways to compute the bits, where torch has one of its own."""
    if request.param == "plain":
        monkeypatch.setattr(philox, "_native", None)


def layer(p: float = 0.5, name: str | None = "00_drop", **axes: Any) -> Dropout:
    made = Dropout(p, **axes)
    made.name = name
    return made


def draw(of: Dropout, x: Tensor, seed: int = 1, step: int = 2, rows: Rows | None = None) -> Tensor:
    with mask_keys(seed, step, range(len(x)) if rows is None else rows):
        return of.draw(x)


# What a mask depends on


def test_masks_do_not_change_between_versions() -> None:
    """Written down when the keys were defined: a change here breaks resuming runs and comparing them."""
    assert draw(layer(name="03_relu"), torch.ones(3, 8)).int().tolist() == [
        [1, 1, 0, 0, 1, 1, 1, 1],
        [0, 1, 0, 1, 0, 1, 1, 1],
        [1, 1, 0, 0, 0, 1, 1, 0],
    ]
    narrow = draw(layer(name="03_relu"), torch.ones(4, 3)).int().tolist()
    assert narrow == [[1, 1, 0], [0, 1, 1], [1, 1, 0], [1, 0, 1]]  # rows follow each other without a gap
    long = draw(layer(0.3, name="03_relu"), torch.ones(3, 300), rows=[5, 0, 7])
    assert (long * torch.arange(300)).sum(1).tolist() == [31793, 28786, 28837]


@pytest.mark.parametrize("features", [1, 3, 64, 300])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_same_arguments_give_the_same_mask(mask: str, noise: str, features: int) -> None:
    first, second = layer(mask=mask, noise=noise), layer(mask=mask, noise=noise)
    x = torch.ones(6, features, 2)
    expected = draw(first, x)
    draw(first, x, step=9)
    assert torch.equal(draw(first, x), expected)
    assert torch.equal(draw(second, -x), expected)


def contiguous(rows: int, workers: int) -> list[list[int]]:
    size = rows // workers
    return [list(range(rank * size, (rank + 1) * size)) for rank in range(workers)]


def interleaved(rows: int, workers: int) -> list[list[int]]:
    return [list(range(rank, rows, workers)) for rank in range(workers)]


def permuted(rows: int, workers: int) -> list[list[int]]:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
    return [order[rank::workers] for rank in range(workers)]


@pytest.mark.parametrize("how", [contiguous, interleaved, permuted])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("shape", [(16, 1), (16, 6), (16, 300), (16, 4, 3, 5)], ids=str)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_workers_give_the_masks_of_one(
    mask: str, noise: str, shape: tuple[int, ...], workers: int, how: Callable[[int, int], list[list[int]]]
) -> None:
    if mask == "channel" and len(shape) == 2:
        shape = (*shape, 2)
    of, x = layer(0.3, mask=mask, noise=noise), torch.ones(shape)
    whole = draw(of, x)
    for rows in how(16, workers):
        part = draw(of, x[rows], rows=rows)
        # Gaussian noise goes through log and cos, which round as the vector unit pleases.
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=0 if noise == "bernoulli" else 1e-6)


@with_fixture
@given(
    rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=6),
    features=st.integers(1, 300),
    p=st.floats(0.01, 0.99),
    as_tensor=st.booleans(),
)
def test_a_row_has_its_own_mask_wherever_it_is(rows: list[int], features: int, p: float, as_tensor: bool) -> None:
    of = layer(p)
    together = draw(of, torch.ones(len(rows), features), rows=torch.tensor(rows) if as_tensor else rows)
    alone = [draw(of, torch.ones(1, features), rows=range(row, row + 1)) for row in rows]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    "rows", [range(3, 7), [3, 4, 5, 6], (3, 4, 5, 6), torch.arange(3, 7), torch.arange(3, 7).int()]
)
@pytest.mark.parametrize("features", [3, 300])
def test_rows_may_be_given_in_any_form(rows: Rows, features: int) -> None:
    x = torch.ones(10, features)
    assert torch.equal(draw(layer(), x[3:7], rows=rows), draw(layer(), x)[3:7])


def test_rows_given_as_a_tensor_may_change_later() -> None:
    x, rows = torch.ones(3, 20), torch.tensor([5, 1, 2])
    context = mask_keys(1, 2, rows)
    rows.zero_()
    with context:
        assert torch.equal(layer().draw(x), draw(layer(), x, rows=[5, 1, 2]))


@pytest.mark.parametrize("features", [12, 300])
@pytest.mark.parametrize("mask", MASKS)
def test_the_mask_does_not_depend_on_dtype_scaling_or_memory(mask: str, features: int) -> None:
    x = torch.ones(4, features, 3, 2)
    expected = draw(layer(0.3, mask=mask), x)
    for dtype, scaling in itertools.product([torch.float32, torch.float64, torch.bfloat16, torch.float16], SCALINGS):
        for memory in (torch.contiguous_format, torch.channels_last):
            of, same = layer(0.3, mask=mask, scaling=scaling), x.to(dtype).contiguous(memory_format=memory)
            assert torch.equal(draw(of, same), expected)
            with mask_keys(1, 2, range(4)):
                assert torch.equal(of(same) != 0, expected.expand(x.shape))


def test_gaussian_noise_differs_between_dtypes_by_rounding_only() -> None:
    x, of = torch.ones(4, 300), layer(noise="gaussian")
    torch.testing.assert_close(draw(of, x).double(), draw(of, x.double()), rtol=0, atol=2e-6)


def test_a_higher_rate_drops_more_of_the_same() -> None:
    """Strategies and rates compared at one seed meet common random numbers."""
    x = torch.ones(64, 20)
    kept = [draw(layer(p), x) for p in (0.2, 0.5, 0.8)]
    assert (kept[1] <= kept[0]).all()
    assert (kept[2] <= kept[1]).all()


# Independence. Two masks of n = 64000 elements: |correlation| * sqrt(n) below 4.5, which chance exceeds 7 times in a
# million, and chi-square of the four outcomes against their probabilities (3 degrees of freedom) below 28: 4 times.

PAIRS = {
    "layers": [{"name": name} for name in ("00_drop", "01_drop", "00_drop_call2", "drop_00", None)],
    "steps": [{"step": step} for step in (0, 1, 2, 2**32, 2**32 + 1, 10**6)],
    "seeds": [{"seed": seed} for seed in (0, 1, 2, -1, 2**32, 2**64, 2**64 + 1)],
    "seed and step": [{"seed": 1, "step": 11}, {"seed": 11, "step": 1}, {"seed": 111, "step": 0}],
    "rows": [{"rows": range(start, start + 64)} for start in (0, 64, 2**31, 2**32, 2**40)],
}


@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("features", [250, 1000], ids=["short", "long"])
@pytest.mark.parametrize("what", PAIRS)
def test_masks_are_uncorrelated_across(what: str, features: int, p: float) -> None:
    x = torch.ones(64000 // features, features)
    masks = []
    for arguments in PAIRS[what]:
        rows = arguments.get("rows", range(64))
        key = {"seed": 1, "step": 2} | arguments | {"rows": range(rows[0], rows[0] + len(x))}
        masks.append(draw(layer(p, key.pop("name", "00_drop")), x, **key))
    for first, second in itertools.combinations(masks, 2):
        assert_independent(first, second, p)


@pytest.mark.parametrize("features", [256, 1024], ids=["short", "long"])
def test_neighbours_in_one_mask_are_uncorrelated(features: int) -> None:
    mask = draw(layer(), torch.ones(64000 // features, features))
    for distance in (1, 2, 3, 4, 8):
        assert_independent(mask[:, distance:], mask[:, :-distance], 0.5)
    for distance in (1, 2, 4):
        assert_independent(mask[distance:], mask[:-distance], 0.5)


def assert_independent(first: Tensor, second: Tensor, p: float) -> None:
    a, b, n = first.flatten().double(), second.flatten().double(), first.numel()
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert abs(correlation) * n**0.5 < 4.5
    q = 1 - p
    cells = torch.tensor([[p * p, p * q], [q * p, q * q]], dtype=torch.float64) * n
    counts = torch.bincount((2 * a + b).int(), minlength=4).view(2, 2)
    assert ((counts - cells).square() / cells).sum().item() < 28


def test_gaussian_noise_is_uncorrelated() -> None:
    x = torch.ones(64, 1000)
    noise = [draw(layer(0.5, name, noise="gaussian"), x, step=step) for name in ("a", "b") for step in (0, 1)]
    correlation = torch.corrcoef(torch.stack([part.flatten() for part in noise]))
    assert (correlation - torch.eye(4)).abs().max() * x.numel() ** 0.5 < 4.5


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
    assert not key_module.active()


def test_a_context_closes_after_an_error() -> None:
    with pytest.raises(ValueError, match="needs"), mask_keys(1, 2, range(4)):
        layer(mask="channel")(torch.ones(4))
    assert not key_module.active()


def test_a_context_is_entered_once() -> None:
    context = mask_keys(1, 2, range(4))
    with context:
        pass
    with pytest.raises(RuntimeError, match="a context is entered once; call mask_keys again"), context:
        pass


def test_a_copy_of_a_layer_has_its_masks() -> None:
    of, x = layer(), torch.ones(4, 300)
    assert torch.equal(draw(copy.deepcopy(of), x), draw(of, x))


# Torch's own generator


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_torchs_generator_is_neither_read_nor_written(mask: str, noise: str) -> None:
    of, x, outs = layer(mask=mask, noise=noise), torch.ones(4, 300, 2, requires_grad=True), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with mask_keys(1, 2, range(4)):
            outs.append(of(x))
        outs[-1].sum().backward()
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(outs[0], outs[1])


# Errors


@pytest.mark.parametrize("name", ["03_relu", None])
@pytest.mark.parametrize("rows", [range(3), [0, 2, 4], range(5)])
def test_a_wrong_number_of_rows_names_the_layer(rows: Rows, name: str | None) -> None:
    called = name or "Dropout"
    message = rf"dropout layer '{called}': mask_keys was given {len(rows)} rows but the input has shape \(4, 6\)"
    with pytest.raises(ValueError, match=message), mask_keys(1, 2, rows):
        layer(name=name)(torch.ones(4, 6))
    with pytest.raises(ValueError, match=r"has shape \(\)"), mask_keys(1, 2, range(1)):
        layer(name=name)(torch.ones(()))


BAD = {
    "seed": (("1", 0, range(2)), TypeError, "seed and step must be ints, got '1' and 0"),
    "float seed": ((1.0, 0, range(2)), TypeError, "seed and step must be ints, got 1.0 and 0"),
    "step": ((1, None, range(2)), TypeError, "seed and step must be ints, got 1 and None"),
    "negative step": ((1, -1, range(2)), ValueError, "step counts micro-batches since the start of training, got -1"),
    "negative rows": ((1, 0, [0, -2]), ValueError, r"1-D positions >= 0 in the global batch, got \[0, -2\]"),
    "negative range": ((1, 0, range(-2, 2)), ValueError, "1-D positions >= 0 in the global batch"),
    "2-D rows": (
        (1, 0, torch.zeros(2, 2, dtype=torch.int64)),
        ValueError,
        r"must be 1-D .* got \[\[0, 0\], \[0, 0\]\]",
    ),
    "float rows": ((1, 0, [0.0, 1.0]), TypeError, "rows must be integers, got torch.float32"),
    "bool rows": ((1, 0, [True, False]), TypeError, "rows must be integers, got torch.bool"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        mask_keys(*arguments)


@pytest.mark.parametrize("rows", [range(0), [], torch.arange(0)])
def test_an_empty_batch_has_empty_masks(rows: Rows) -> None:
    assert draw(layer(), torch.ones(0, 5), rows=rows).shape == (0, 5)


def test_any_integer_is_a_seed() -> None:
    x = torch.ones(2, 8)
    for seed in (-1, 0, 2**70, torch.tensor(3)):
        assert torch.equal(draw(layer(), x, seed=seed), draw(layer(), x, seed=int(seed)))


# Recomputation in backward


def segment(p: float = 0.5, name: str = "00_drop") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), layer(p, name), nn.Tanh(), nn.Linear(40, 6)).double()


def gradients(parts: list[nn.Sequential], x: Tensor, forward: Callable[..., Tensor]) -> list[Tensor]:
    """Gradients of keyed training steps whose backward passes run after their contexts closed, last step first."""
    losses = []
    for step in range(3):
        with mask_keys(1, step, range(len(x))):
            y = x
            for part in parts:
                y = forward(part, y)
            losses.append(y.square().sum())
    results = []
    for loss in reversed(losses):
        loss.backward()
        for weight in (weight for part in parts for weight in part.parameters()):
            results.append(weight.grad)
            weight.grad = None
    return results


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


def test_unkeyed_checkpointing_stays_torchs() -> None:
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    part(x).sum().backward()
    expected, x.grad = x.grad, None
    torch.manual_seed(3)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert torch.equal(x.grad, expected)


# Compilation


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend() -> Iterator[Counting]:
    torch._dynamo.reset()
    yield Counting()
    torch._dynamo.reset()


def net() -> nn.Sequential:
    """A named layer, one without a name, and one called twice."""
    torch.manual_seed(0)
    twice = layer(0.4, "02_twice")
    return nn.Sequential(nn.Linear(6, 40), layer(0.5), nn.Linear(40, 6), layer(0.3, None), twice, nn.Tanh(), twice)


@pytest.mark.parametrize("whole", [False, True], ids=["rows", "range"])
@pytest.mark.slow
def test_compiled_is_eager_with_100_steps_in_one_graph(backend: Counting, whole: bool) -> None:
    model, x = net(), torch.randn(4, 6, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for step in range(100):
        rows = range(3 * step, 3 * step + 4) if whole else torch.arange(4) * (step + 2)
        results = []
        for run in (model, compiled):
            with mask_keys(step // 7, step, rows):
                y = run(x)
            results.append((y, *torch.autograd.grad(y.square().sum(), x)))
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert backend.graphs == 1


@pytest.mark.slow
def test_a_new_rate_does_not_recompile(backend: Counting) -> None:
    """One graph for all rates, and one for p = 0."""
    of, x = layer(0.5), torch.ones(4, 300)
    compiled = torch.compile(of, fullgraph=True, backend=backend)
    for step, p in enumerate([0.5, 0.25, 0.1, 0.0, 0.3, 0.9, 0.0, 1e-3, 0.7]):
        of.p = p
        with mask_keys(1, step, range(4)):
            out = compiled(x)
        with mask_keys(1, step, range(4)):
            assert torch.equal(out, of(x))
    assert backend.graphs == 2


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["unkeyed", "classic in eval"])
def test_a_new_rate_does_not_recompile_without_keys_either(backend: Counting, training: bool) -> None:
    of, x = layer(0.5, scaling="inverted" if training else "classic").train(training), torch.ones(4, 300)
    compiled = torch.compile(of, fullgraph=True, backend=backend)
    for p in (0.5, 0.25, 0.1, 0.7):
        of.p = p
        torch.testing.assert_close(compiled(x).max(), torch.tensor(1 / (1 - p) if training else 1 - p))
    assert backend.graphs == 1


@pytest.mark.slow
def test_a_new_rate_of_gaussian_noise_does_not_recompile(backend: Counting) -> None:
    of, x = layer(0.5, noise="gaussian"), torch.ones(4, 30)
    compiled = torch.compile(of, fullgraph=True, backend=backend)
    for p in (0.5, 0.25, 0.1):
        of.p = p
        with mask_keys(1, 2, range(4)):
            out = compiled(x)
        with mask_keys(1, 2, range(4)):
            torch.testing.assert_close(out, of(x))
    assert backend.graphs == 1


@pytest.mark.slow
def test_a_context_inside_the_compiled_function_is_not_needed(backend: Counting) -> None:
    """Keyed and unkeyed calls are two graphs, and each stays what it is."""
    of, x = layer(), torch.ones(4, 300)
    compiled = torch.compile(of, fullgraph=True, backend=backend)
    for _ in range(2):
        unkeyed = compiled(x)
        with mask_keys(1, 2, range(4)):
            keyed = compiled(x)
        assert torch.equal(keyed != 0, draw(of, x))
        assert not torch.equal(unkeyed, keyed)
    assert backend.graphs == 2


@pytest.mark.slow
@pytest.mark.parametrize("use_reentrant", [False])
def test_compiled_checkpointing_gives_eager_gradients(use_reentrant: bool) -> None:
    torch._dynamo.reset()
    part, x = segment(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(lambda x: checkpoint(part, x, use_reentrant=use_reentrant), backend="aot_eager")
    grads = []
    for run in (part, compiled):
        with mask_keys(1, 2, range(4)):
            y = run(x)
        grads.append(torch.autograd.grad(y.square().sum(), [x, *part.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)
