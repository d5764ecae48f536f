"""The laws of dropout, and how each is measured on a layer; ``scorecard.py`` tells which of them one keeps.

With q = 1 - p, and what the layer's scaling promises of the factor f on its input:

    mean                E f = m/q (inverted) or m (classic, unscaled), in training
    variance            Var f = v/q^2 (inverted) or v (classic, unscaled), in training; of the noise before scaling, m
                        is q and v is p*q, or what the layer's attributes `mean` and `variance` say
    gain in train       mean out / mean in on rectified inputs is E f
    gain in eval        ... is 1 (inverted, unscaled) or q (classic), without noise
    gradient            the gradient goes through the same factors as the values, in both modes
    identity            p = 0, and eval unless classic, return the input and draw nothing
    dtypes              float16, bfloat16, float32, float64 come out as they went in, with the promised mean
    compile             torch.compile(fullgraph=True) gives the eager output
    keys repeat         the same mask_keys give the same mask, another step another one
    keys split          workers that share the rows of a batch draw the masks that one draws for all
    keys and dtype      the keyed mask does not depend on dtype and memory format
    keys alone          under mask_keys, torch's generator is neither read nor written
    pickling            what comes back from pickle and deepcopy does what the layer does

Statistical laws hold within 5 standard errors, which chance exceeds once in two million checks.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from dropout_lab.dropout.axes import SCALINGS, eval_factor
from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.keys import mask_keys

_STEPS = 4  # batches for the statistical laws
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Verdict = tuple[bool | None, str]
"""Whether a law holds (None: it does not apply), and what was measured."""


class Subject:
    """A layer under test: a copy of it, what it promises, and ways to run it; arguments and errors as for `check`."""

    def __init__(self, layer: nn.Module, p: float | None, shape: Sequence[int]) -> None:
        self.original, self.layer = layer, copy.deepcopy(layer)
        if getattr(layer, "monte_carlo", False):
            self.layer.monte_carlo = False  # type: ignore[assignment]
        self.attribute = next((name for name in ("p", "drop_prob") if hasattr(layer, name)), None)
        if p is None and self.attribute is None:
            raise ValueError(
                f"check: {layer} has no attribute p or drop_prob; say how much it drops: check(layer, p=0.5)"
            )
        self.p = float(getattr(layer, str(self.attribute)) if p is None else p)
        if not 0 <= self.p < 1:
            raise ValueError(f"check: {layer} drops with p = {self.p}; the laws are about 0 <= p < 1")
        self.scaling = getattr(layer, "scaling", "inverted" if getattr(layer, "scale_by_keep", True) else "unscaled")
        if self.scaling not in SCALINGS:
            raise ValueError(f"check: {layer} has scaling={self.scaling!r}; allowed: {', '.join(SCALINGS)}")
        q = 1 - self.p
        scale = 1 / q if self.scaling == "inverted" else 1
        self.mean, self.variance = scale * getattr(layer, "mean", q), scale**2 * getattr(layer, "variance", self.p * q)
        self.eval_factor = eval_factor(self.scaling, self.p)
        self.shape = tuple(shape)

    def ones(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """A batch of ones, of which the layer makes its factors."""
        return torch.ones(self.shape, dtype=dtype)

    def random(self) -> Tensor:
        """A batch of standard normal numbers in float64, always the same."""
        # Not a seed that a mask is drawn with: torch's generator would give masks that know the input.
        generator = torch.Generator().manual_seed(2**32 - 5)
        return torch.randn(self.shape, dtype=torch.float64, generator=generator)

    def train(self, x: Tensor, step: int = 0, rows: Tensor | None = None, torchs: int | None = None) -> Tensor:
        """The output in training; masks follow from step and rows, and from torch's seed if the layer uses that."""
        return _call(self.layer.train(), x, step, rows, torchs)

    def eval(self, x: Tensor) -> Tensor:
        """The output in eval mode."""
        return self.layer.eval()(x)  # type: ignore[no-any-return]

    @cached_property
    def factors(self) -> Tensor:
        """The factors of many samples in training, float64 (steps * N, elements of a sample)."""
        return torch.cat([self.train(self.ones(), step).double().flatten(1) for step in range(_STEPS)])


def _call(
    layer: Callable[[Tensor], Tensor], x: Tensor, step: int = 0, rows: Tensor | None = None, torchs: int | None = None
) -> Tensor:
    torch.default_generator.manual_seed(step if torchs is None else torchs)  # not those of other devices
    with mask_keys(0, step, range(len(x)) if rows is None else rows):
        return layer(x)


_NOTHING_DRAWN: Verdict = None, "nothing is drawn at p = 0"


def _mean(subject: Subject) -> Verdict:
    return _estimate(subject.factors.mean(1), subject.mean)


def _variance(subject: Subject) -> Verdict:
    holds, text = _estimate((subject.factors - subject.mean).square().mean(1), subject.variance)
    remedy = "; if it is meant to be another, the layer's attribute variance says which: of its noise before scaling"
    return holds, text + remedy * (not holds)


def _gain_in_train(subject: Subject) -> Verdict:
    x = subject.random().relu()
    out = torch.cat([subject.train(x, step).flatten(1).mean(1) for step in range(_STEPS)])
    rest = out - subject.mean * x.flatten(1).mean(1).repeat(_STEPS)  # inputs are known, so only the masks are random
    return _estimate(subject.mean + rest / x.mean(), subject.mean)


def _gain_in_eval(subject: Subject) -> Verdict:
    x = subject.random().relu()
    gains = subject.eval(x)[x > 0] / x[x > 0]
    low, high = gains.aminmax()
    exact = torch.allclose(gains, torch.full_like(gains, subject.eval_factor), rtol=1e-6)
    return exact, f"{low:.4f}" + f" to {high:.4f}" * bool(high - low > 1e-6) + f", promised {subject.eval_factor:.4g}"


def _gradient(subject: Subject) -> Verdict:
    x, upstream = subject.random().requires_grad_(), subject.random().flip(0)
    errors = []
    for out in (subject.train(x), subject.eval(x)):
        (gradient,) = torch.autograd.grad(out, x, upstream)
        errors.append((gradient * x - upstream * out).abs().max().item())
    return max(errors) < 1e-6, f"|x * gradient - out * upstream| <= {max(errors):.1e}"


def _identity(subject: Subject) -> Verdict:
    x, modes = subject.random(), [] if subject.scaling == "classic" else [("eval", subject.layer.eval())]
    if subject.attribute is not None and not getattr(subject.layer, "learns", False):
        off = copy.deepcopy(subject.layer).train()
        setattr(off, subject.attribute, 0.0)
        modes.append(("p = 0", off))
    if not modes:
        return None, "classic dropout scales in eval, and there is no p that could be set to 0"
    findings = []
    for mode, layer in modes:
        state = torch.get_rng_state()
        out = layer(x)
        quiet = torch.equal(torch.get_rng_state(), state)
        same = "the input itself" if out is x else "a copy" if torch.equal(out, x) else "other values"
        findings.append((same != "other values" and quiet, f"{mode}: {same}" + ", draws random numbers" * (not quiet)))
    return all(good for good, _ in findings), "; ".join(text for _, text in findings)


def _dtypes(subject: Subject) -> Verdict:
    wrong = []
    for dtype in _DTYPES:
        out = subject.train(subject.ones(dtype))
        if out.dtype != dtype:
            wrong.append(f"{_short(dtype)} in, {_short(out.dtype)} out")
            continue
        holds, text = _estimate(out.double().flatten(1).mean(1), subject.mean, torch.finfo(dtype).eps)
        if not holds:
            wrong.append(f"{_short(dtype)}: mean {text}")
    return not wrong, "; ".join(wrong) or ", ".join(map(_short, _DTYPES))


def _compile(subject: Subject) -> Verdict:
    x = subject.random()
    # Every layer of a class counts as a recompilation of its forward.
    with torch._dynamo.config.patch(recompile_limit=2**16, accumulated_recompile_limit=2**16):
        compiled = torch.compile(copy.deepcopy(subject.layer).train(), fullgraph=True, backend="eager")
        return _same([(subject.train(x), _call(compiled, x))], 1e-6, "compiled and eager")


def _keys_repeat(subject: Subject) -> Verdict:
    if subject.p == 0:
        return _NOTHING_DRAWN
    x = subject.ones()
    first, again, other = (subject.train(x, step, torchs=seed) for seed, step in enumerate((1, 1, 2)))
    if torch.equal(first, other):
        return False, "another step gives the same mask"
    return _same([(first, again)], 1e-6, "the same keys twice")


def _keys_split(subject: Subject) -> Verdict:
    if subject.p == 0:
        return _NOTHING_DRAWN
    x, rows = subject.ones(), torch.arange(subject.shape[0])
    whole = subject.train(x, torchs=0)
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    pairs = [
        (whole[part], subject.train(x[part], rows=part, torchs=1 + seed))
        for seed, part in enumerate([*rows.chunk(2), *(shuffled[rank::4] for rank in range(4))])
    ]
    return _same(pairs, 1e-6, "one worker and 2 (contiguous rows), 4 (shuffled rows)")


def _keys_and_dtype(subject: Subject) -> Verdict:
    if subject.p == 0:
        return _NOTHING_DRAWN
    x = subject.ones()
    expected = subject.train(x, torchs=0)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    pairs = [(expected, subject.train(turned, torchs=1))]
    pairs += [(expected, subject.train(x.to(dtype), torchs=2)) for dtype in _DTYPES]
    return _same(pairs, 4 * torch.finfo(torch.bfloat16).eps, "dtypes and memory formats")


def _keys_alone(subject: Subject) -> Verdict:
    state = torch.get_rng_state()
    with mask_keys(0, 0, range(subject.shape[0])):
        subject.layer.train()(subject.ones())
    untouched = torch.equal(torch.get_rng_state(), state)
    return untouched, "torch's generator is " + ("untouched" if untouched else "used under mask_keys")


def _pickling(subject: Subject) -> Verdict:
    x, layer = subject.ones(), subject.original
    with in_mode(layer, training=True):
        out, twins = _call(layer, x), (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer))
    return _same([(out, _call(twin, x)) for twin in twins], 1e-6, "layer and copies")


LAWS: dict[str, Callable[[Subject], Verdict]] = {
    "mean": _mean,
    "variance": _variance,
    "gain in train": _gain_in_train,
    "gain in eval": _gain_in_eval,
    "gradient": _gradient,
    "identity": _identity,
    "dtypes": _dtypes,
    "compile": _compile,
    "keys repeat": _keys_repeat,
    "keys split": _keys_split,
    "keys and dtype": _keys_and_dtype,
    "keys alone": _keys_alone,
    "pickling": _pickling,
}


def _estimate(samples: Tensor, promised: float, rounding: float = 1e-6) -> Verdict:
    """Whether independent samples have the promised mean, within 5 standard errors and rounding."""
    mean, error = samples.mean().item(), samples.std().item() / len(samples) ** 0.5
    holds = abs(mean - promised) <= 5 * error + rounding * max(1, promised)
    return holds, f"{mean:.4f} ± {error:.4f}, promised {promised:.4g}"


def _same(pairs: Iterable[tuple[Tensor, Tensor]], tolerance: float, what: str) -> Verdict:
    """Whether both of each pair are equal up to rounding."""
    wrong, total = 0, 0
    for first, second in pairs:
        near = torch.isclose(first.double(), second.double(), rtol=tolerance, atol=tolerance)
        wrong, total = wrong + int((~near).sum()), total + near.numel()
    return not wrong, f"{what}: " + (f"{wrong / total:.1%} of the elements differ" if wrong else "the same")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
