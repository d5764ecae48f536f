"""Keyed masks are a pure function of (seed, layer, step, row, element), and of nothing else."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyed_layers import Rows, alone, assert_independent, compiled_checkpoint, draw, gradients, layer, segment
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_lab.dropout import MASKS_VERSION, mask_keys
from dropout_lab.dropout.axes import MASKS, NOISES, SCALINGS

pytestmark = pytest.mark.usefixtures("source")
with_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


# What a mask depends on


def test_masks_do_not_change_between_versions() -> None:
    """Written down for this MASKS_VERSION: a change here breaks resuming runs and comparing them, and raises it."""
    assert MASKS_VERSION == 2
    assert draw(layer(name="03_relu"), torch.ones(3, 8)).int().tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 1, 1, 1, 1, 0],
    ]
    narrow = draw(layer(name="03_relu"), torch.ones(4, 3)).int().tolist()
    assert narrow == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0]]  # rows follow each other without a gap
    long = draw(layer(0.3, name="03_relu"), torch.ones(3, 300), rows=[5, 0, 7])
    assert (long * torch.arange(300)).sum(1).tolist() == [30411, 30580, 31058]


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


@pytest.mark.slow
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


@pytest.mark.parametrize("features", [20, 64, 65, 300])
def test_a_higher_rate_drops_more_of_the_same(features: int) -> None:
    """Strategies and rates compared at one seed meet common random numbers."""
    x = torch.ones(64, features)
    kept = [draw(layer(p), x) for p in (1e-5, 0.2, 0.5 - 2**-20, 0.5, 0.8, 0.99)]
    for more, less in itertools.pairwise(kept):
        assert (less <= more).all()


# Independence

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


def test_gaussian_noise_is_uncorrelated() -> None:
    x = torch.ones(64, 1000)
    noise = [draw(layer(0.5, name, noise="gaussian"), x, step=step) for name in ("a", "b") for step in (0, 1)]
    correlation = torch.corrcoef(torch.stack([part.flatten() for part in noise]))
    assert (correlation - torch.eye(4)).abs().max() * x.numel() ** 0.5 < 4.5


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
    "negative step": ((1, -1, range(2)), ValueError, r"step counts micro-batches .* 0 <= step < 2\^63, got -1"),
    "step of 64 bits": (
        (1, 2**63, range(2)),
        ValueError,
        rf"step counts micro-batches .* 0 <= step < 2\^63, got {2**63}",
    ),
    "rows": (
        (1, 0, [0, -2]),
        ValueError,
        r"rows must be 1-D positions >= 0 in the global batch, below 2\^48, got \[0, -2\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        mask_keys(*arguments)


def test_the_last_step_and_row_have_masks() -> None:
    x, last = torch.ones(1, 300), range(2**48 - 1, 2**48)
    masks = [draw(layer(), x, step=step, rows=rows) for step in (0, 2**63 - 1) for rows in (range(1), last)]
    for first, second in itertools.combinations(masks, 2):
        assert_independent(first, second, 0.5)


@pytest.mark.parametrize("rows", [range(0), [], torch.arange(0)])
def test_an_empty_batch_has_empty_masks(rows: Rows) -> None:
    assert draw(layer(), torch.ones(0, 5), rows=rows).shape == (0, 5)


def test_any_integer_is_a_seed() -> None:
    x = torch.ones(2, 8)
    for seed in (-1, 0, 2**70, torch.tensor(3)):
        assert torch.equal(draw(layer(), x, seed=seed), draw(layer(), x, seed=int(seed)))


# Compilation


class Counting:
    """A backend that compiles graphs as another does, and counts them."""

    def __init__(self, name: str) -> None:
        self.name, self.graphs, self.compile = name, 0, torch._dynamo.lookup_backend(name)

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return self.compile(graph, inputs)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Counting]:
    torch._dynamo.reset()
    yield Counting(getattr(request, "param", "eager"))
    torch._dynamo.reset()


def net() -> nn.Sequential:
    """A named layer, one without a name, and one called twice."""
    torch.manual_seed(0)
    twice = layer(0.4, "02_twice")
    return nn.Sequential(nn.Linear(6, 40), layer(0.5), nn.Linear(40, 6), layer(0.3, None), twice, nn.Tanh(), twice)


@pytest.mark.parametrize("backend", ["eager", "inductor"], indirect=True)
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
        tolerance = 1e-5 if backend.name == "inductor" else 0
        torch.testing.assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)
        assert torch.equal(results[0][0] == 0, results[1][0] == 0)
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's tracer looks at it
def test_compiled_checkpointing_whose_backward_comes_after_other_contexts_gives_eager_gradients() -> None:
    torch._dynamo.reset()
    parts, x = [segment(0.5, "a"), segment(0.3, "b")], torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    expected = gradients(parts, x, lambda part, y: part(y))
    with mask_keys(9, 9, range(7)):
        torch.testing.assert_close(gradients(parts, x, compiled_checkpoint), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_network_compiled_in_another_thread_has_the_masks_of_eager(backend: Counting) -> None:
    model, x = net(), torch.randn(4, 6)

    def steps(run: Callable[[Tensor], Tensor]) -> Tensor:
        outs = []
        for step in range(3):
            with mask_keys(1, step, range(4)):
                outs.append(run(x))
        return torch.stack(outs)

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    expected = steps(model)
    with mask_keys(9, 9, range(4)):
        torch.testing.assert_close(alone(partial(steps, compiled)), expected, rtol=0, atol=0)
    torch.testing.assert_close(steps(compiled), expected, rtol=0, atol=0)
    assert backend.graphs == 1


@pytest.mark.slow
def test_a_compiled_network_finds_its_context_again_after_many_inner_ones(backend: Counting) -> None:
    of, x = layer(), torch.ones(4, 300)
    compiled = torch.compile(of, fullgraph=True, backend=backend)
    with mask_keys(1, 2, range(4)):
        for step in range(300):
            with mask_keys(3, step, range(5, 9)):
                pass
        assert torch.equal(compiled(x) != 0, draw(of, x))
