"""Which laws of dropout a layer keeps: ``print(check(layer))``, for ours, torch's, timm's or your own.

With q = 1 - p, and what the layer's scaling promises of the factor f on its input:

    mean                E f = 1 (inverted) or q (classic, unscaled), in training
    variance            Var f = p/q (inverted) or p*q (classic, unscaled), in training
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
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.keys import mask_keys

_STEPS = 4  # batches for the statistical laws


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Law(NamedTuple):
    """One line of the scorecard; `holds` is None where the law does not apply."""

    name: str
    holds: bool | None
    measured: str

    def __str__(self) -> str:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "does not apply"}[self.holds]
        return f"{self.name:<16}{verdict:<16}{self.measured}"


@dataclass(frozen=True)
class Scorecard:
    """What :func:`check` found; its text is a table with a line for each law."""

    layer: str
    laws: tuple[Law, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the laws that do not hold."""
        return [law.name for law in self.laws if law.holds is False]

    def __str__(self) -> str:
        return "\n".join([self.layer, *(f"  {law}" for law in self.laws)])


def check(
    layer: nn.Module,
    *,
    p: float | None = None,
    shape: Sequence[int] = (1024, 3, 9, 10),
    laws: Collection[str] | None = None,
) -> Scorecard:
    """Test a dropout layer against the laws listed at the top of this file; takes about a second.

    In a test of your own: ``assert not check(layer).failed``. The layer itself and torch's generator stay as they are.

    Args:
        layer: takes one tensor and returns one of the same shape. What its scaling promises is read from its attribute
            `scaling` (or timm's `scale_by_keep`); without one, inverted dropout is presumed.
        p: its probability to drop; by default its attribute `p`, or `drop_prob` as timm calls it.
        shape: of the inputs, (N, ...). All N samples count as independent, so N makes the statistics sharp.
        laws: names of the laws to look at; None is all of them.

    Raises:
        ValueError: the layer has no probability to read and none is given; p outside [0, 1); an unknown scaling or law.
    """
    unknown = sorted(set(laws or ()) - set(_LAWS))
    if unknown:
        raise ValueError(f"check: no law is called {', '.join(unknown)}; there are {', '.join(_LAWS)}")
    subject = _Subject(layer, p, shape)
    chosen = _LAWS if laws is None else {name: law for name, law in _LAWS.items() if name in laws}
    with torch.random.fork_rng(devices=[]):
        found = tuple(_judge(name, law, subject) for name, law in chosen.items())
    return Scorecard(f"{layer}: p = {subject.p:.4g}, {subject.scaling}", found)


class _Subject:
    """A copy of the layer, what it promises, and ways to run it."""

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
        if self.scaling not in ("inverted", "classic", "unscaled"):
            raise ValueError(f"check: {layer} has scaling={self.scaling!r}; allowed: inverted, classic, unscaled")
        q = 1 - self.p
        self.mean = 1 if self.scaling == "inverted" else q
        self.variance = self.p / q if self.scaling == "inverted" else self.p * q
        self.eval_gain = q if self.scaling == "classic" else 1
        self.shape = tuple(shape)

    def ones(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.ones(self.shape, dtype=dtype)

    def random(self) -> Tensor:
        # Not a seed that a mask is drawn with: torch's generator would give masks that know the input.
        generator = torch.Generator().manual_seed(2**32 - 5)
        return torch.randn(self.shape, dtype=torch.float64, generator=generator)

    def train(self, x: Tensor, step: int = 0, rows: Tensor | None = None, torchs: int | None = None) -> Tensor:
        """The output in training; masks follow from step and rows, and from torch's seed if the layer uses that."""
        return _call(self.layer.train(), x, step, rows, torchs)

    def eval(self, x: Tensor) -> Tensor:
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


_Verdict = tuple[bool | None, str]


_NOTHING_DRAWN: _Verdict = None, "nothing is drawn at p = 0"


def _judge(name: str, law: Callable[[_Subject], _Verdict], subject: _Subject) -> Law:
    try:
        return Law(name, *law(subject))
    except Exception as error:  # any error of the layer is a finding, and the other laws are still of interest
        return Law(name, False, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def _mean(subject: _Subject) -> _Verdict:
    return _estimate(subject.factors.mean(1), subject.mean)


def _variance(subject: _Subject) -> _Verdict:
    return _estimate((subject.factors - subject.mean).square().mean(1), subject.variance)


def _gain_in_train(subject: _Subject) -> _Verdict:
    x = subject.random().relu()
    out = torch.cat([subject.train(x, step).flatten(1).mean(1) for step in range(_STEPS)])
    rest = out - subject.mean * x.flatten(1).mean(1).repeat(_STEPS)  # inputs are known, so only the masks are random
    return _estimate(subject.mean + rest / x.mean(), subject.mean)


def _gain_in_eval(subject: _Subject) -> _Verdict:
    x = subject.random().relu()
    gains = subject.eval(x)[x > 0] / x[x > 0]
    low, high = gains.aminmax()
    exact = torch.allclose(gains, torch.full_like(gains, subject.eval_gain), rtol=1e-6)
    return exact, f"{low:.4f}" + f" to {high:.4f}" * bool(high - low > 1e-6) + f", promised {subject.eval_gain:.4g}"


def _gradient(subject: _Subject) -> _Verdict:
    x, upstream = subject.random().requires_grad_(), subject.random().flip(0)
    errors = []
    for out in (subject.train(x), subject.eval(x)):
        (gradient,) = torch.autograd.grad(out, x, upstream)
        errors.append((gradient * x - upstream * out).abs().max().item())
    return max(errors) < 1e-6, f"|x * gradient - out * upstream| <= {max(errors):.1e}"


def _identity(subject: _Subject) -> _Verdict:
    x, modes = subject.random(), [] if subject.scaling == "classic" else [("eval", subject.layer.eval())]
    if subject.attribute is not None:
        off = copy.deepcopy(subject.layer).train()
        setattr(off, subject.attribute, 0.0)
        modes.append(("p = 0", off))
    if not modes:
        return None, "classic dropout scales in eval, and there is no p to set to 0"
    findings = []
    for mode, layer in modes:
        state = torch.get_rng_state()
        out = layer(x)
        quiet = torch.equal(torch.get_rng_state(), state)
        same = "the input itself" if out is x else "a copy" if torch.equal(out, x) else "other values"
        findings.append((same != "other values" and quiet, f"{mode}: {same}" + ", draws random numbers" * (not quiet)))
    return all(good for good, _ in findings), "; ".join(text for _, text in findings)


def _dtypes(subject: _Subject) -> _Verdict:
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


def _compile(subject: _Subject) -> _Verdict:
    x = subject.random()
    # Every layer of a class counts as a recompilation of its forward.
    with torch._dynamo.config.patch(recompile_limit=2**16, accumulated_recompile_limit=2**16):
        compiled = torch.compile(copy.deepcopy(subject.layer).train(), fullgraph=True, backend="eager")
        return _same([(subject.train(x), _call(compiled, x))], 1e-6, "compiled and eager")


def _keys_repeat(subject: _Subject) -> _Verdict:
    if subject.p == 0:
        return _NOTHING_DRAWN
    x = subject.ones()
    first, again, other = (subject.train(x, step, torchs=seed) for seed, step in enumerate((1, 1, 2)))
    if torch.equal(first, other):
        return False, "another step gives the same mask"
    return _same([(first, again)], 1e-6, "the same keys twice")


def _keys_split(subject: _Subject) -> _Verdict:
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


def _keys_and_dtype(subject: _Subject) -> _Verdict:
    if subject.p == 0:
        return _NOTHING_DRAWN
    x = subject.ones()
    expected = subject.train(x, torchs=0)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    pairs = [(expected, subject.train(turned, torchs=1))]
    pairs += [(expected, subject.train(x.to(dtype), torchs=2)) for dtype in _DTYPES]
    return _same(pairs, 4 * torch.finfo(torch.bfloat16).eps, "dtypes and memory formats")


def _keys_alone(subject: _Subject) -> _Verdict:
    state = torch.get_rng_state()
    with mask_keys(0, 0, range(subject.shape[0])):
        subject.layer.train()(subject.ones())
    untouched = torch.equal(torch.get_rng_state(), state)
    return untouched, "torch's generator is " + ("untouched" if untouched else "used under mask_keys")


def _pickling(subject: _Subject) -> _Verdict:
    x, layer = subject.ones(), subject.original
    with in_mode(layer, training=True):
        out, twins = _call(layer, x), (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer))
    return _same([(out, _call(twin, x)) for twin in twins], 1e-6, "layer and copies")


_LAWS: dict[str, Callable[[_Subject], _Verdict]] = {
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


def _estimate(samples: Tensor, promised: float, rounding: float = 1e-6) -> _Verdict:
    """Whether independent samples have the promised mean, within 5 standard errors and rounding."""
    mean, error = samples.mean().item(), samples.std().item() / len(samples) ** 0.5
    holds = abs(mean - promised) <= 5 * error + rounding * max(1, promised)
    return holds, f"{mean:.4f} ± {error:.4f}, promised {promised:.4g}"


def _same(pairs: Iterable[tuple[Tensor, Tensor]], tolerance: float, what: str) -> _Verdict:
    """Whether both of each pair are equal up to rounding."""
    wrong, total = 0, 0
    for first, second in pairs:
        near = torch.isclose(first.double(), second.double(), rtol=tolerance, atol=tolerance)
        wrong, total = wrong + int((~near).sum()), total + near.numel()
    return not wrong, f"{what}: " + (f"{wrong / total:.1%} of the elements differ" if wrong else "the same")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
