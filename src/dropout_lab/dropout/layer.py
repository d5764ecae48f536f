"""Dropout in one page: what is dropped, what noise does it, and where the rescaling happens.

With p the probability to DROP, q = 1 - p, and raw noise m of mean q:

    scaling     train          eval
    inverted    x * m / q      x            every layer's expected output is its eval output
    classic     x * m          x * q        the same, paid for at test time (Srivastava et al. 2014, section 4)
    unscaled    x * m          x            the control: the next layer sees a jump from train to eval

    mask        one draw for each ...
    element     entry of x (standard dropout)
    channel     (sample, channel): whole feature maps (Tompson et al. 2015, "SpatialDropout")
    sample      sample (the mask of stochastic depth, Huang et al. 2016)

    noise       m
    bernoulli   1 with probability q, else 0
    gaussian    q * N(1, p/q): same mean and variance (Srivastava et al. 2014, section 10; they write p for our q)
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout import keys
from dropout_lab.dropout import noise as noises
from dropout_lab.dropout.axes import MASKS, NOISES, SCALINGS, require_one_of, require_rate


class Dropout(_DropoutNd):
    """Multiplies its input by random noise while training, and keeps the expectation as ``scaling`` says.

    Args:
        p: probability to DROP a unit, 0 <= p < 1; may be assigned later.
        mask: "element", "channel" (inputs (N, C, *spatial), 3-D to 5-D) or "sample".
        noise: "bernoulli" or "gaussian".
        scaling: "inverted", "classic" or "unscaled".
        elsewhere: the mask to use where "channel" meets an input without maps; None refuses such inputs.

    Shapes: any floating-point tensor in, the same shape, dtype and device out. The leading dimension is the batch.

    A new strategy subclasses this and overrides :meth:`draw`, and :attr:`mean` and :attr:`variance` where its noise has
    others. It may own parameters, of one dimension or more, and learn its rate: :attr:`learned_p`. A method
    ``penalty(fed, rows)`` is a term of the loss, which it gets as one number: ``fed`` are the affine layers that read
    its output (``graph/fed.py``), ``rows`` is the number of samples that the loss is a mean of over an epoch.

    ``monte_carlo = True`` makes the layer use the training formula in eval, too (Gal and Ghahramani 2016).

    Raises:
        ValueError: p outside [0, 1), an unknown axis value, an input whose shape the mask does not fit.
        TypeError: p is not a real number, or the input is not floating-point or not dense (in train and in eval).
    """

    schedule: Callable[[float, float], float] | None = None  # of its p over training, if not that of all layers

    learns: ClassVar[bool] = False  # whether the strategy learns its rate

    _p: float
    _off: bool  # p is 0
    _rate: noises.Rate

    def __init__(
        self,
        p: float = 0.5,
        *,
        mask: str = "element",
        noise: str = "bernoulli",
        scaling: str = "inverted",
        elsewhere: str | None = None,
    ) -> None:
        torch.nn.Module.__init__(self)  # _DropoutNd's own would accept p = 1 and NaN
        self.inplace = False
        self.name = None
        require_one_of("mask", mask, MASKS)
        require_one_of("noise", noise, NOISES)
        require_one_of("scaling", scaling, SCALINGS)
        require_one_of("elsewhere", elsewhere, ("element", "sample"), null=True)
        self.mask = self.given_mask = mask  # where it does not fit, install lets the layer have another
        self.noise, self.scaling, self.elsewhere = noise, scaling, elsewhere
        self.monte_carlo = False
        self.p = p

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.learns = cls.learned_p is not Dropout.learned_p

    def forward(self, x: Tensor) -> Tensor:
        """Dropout applied to x; see the table at the top of this file."""
        if not x.is_floating_point() or x.is_nested or x.layout is not torch.strided:
            raise TypeError(f"{self._who()} needs a {_refusal(x)}")
        if self._off:
            return x
        if self.training or self.monte_carlo:
            if x.is_cuda and (fused := self._fused(x)) is not None:
                return fused
            noise, rate = self.draw(x), self._rate if self.scaling == "inverted" else None
            if rate is not None and self.learns:  # the gradient reaches p through the scale, too
                noise, rate = noise / self.q, None
            out = noises.multiply(x, noise, rate)
        else:
            if self.mask == "channel":
                self.noise_shape(x)  # what it would refuse in training
            if self.scaling != "classic":
                return x
            out = x * self.q
        return out if x.ndim else out.to(x.dtype)  # two numbers without dimensions have the wider dtype as product

    def draw(self, x: Tensor) -> Tensor:
        """Raw noise for x: a tensor that broadcasts to x, of mean 1 - p. The one method a strategy has to override.

        With its bits from `noise.bernoulli` or `noise.normal`, and no row's noise depending on another row, a strategy
        is keyed; a boolean mask costs one byte an element in backward.
        """
        shape = self.noise_shape(x)
        if self.noise == "bernoulli" and self.learns:
            return noises.uniform(self, x, shape) < self.q
        if self.noise == "bernoulli":
            return noises.bernoulli(self, x, shape, self._rate)
        q = self.q
        return q + ((1 - q) * q).sqrt() * noises.normal(self, x, shape)

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the noise for x, by the layer's mask: one number for each thing that is dropped."""
        mask: str | None = self.mask
        shape = x.shape
        if mask == "channel" and not 3 <= len(shape) <= 5:
            if self.elsewhere is None:
                raise ValueError(
                    f"{self._who()}: mask='channel' drops whole maps and needs an input (N, C, L), (N, C, H, W) or "
                    f"(N, C, D, H, W), got shape {tuple(shape)}; use mask='element', or elsewhere='element'"
                )
            mask = self.elsewhere
        if mask == "element":
            return shape
        kept = 2 if mask == "channel" else 1
        return shape[:kept] + (1,) * (len(shape) - kept)

    @property
    def mean(self) -> float:
        """Mean of the raw noise, to which ``check`` holds the layer: 1 - p, or near to it for noise that is relaxed."""
        return 1 - self.p

    @property
    def variance(self) -> float:
        """Variance of the raw noise, to which ``check`` holds the layer: p * (1 - p), as Bernoulli noise has it."""
        return self.p * (1 - self.p)

    @property
    def learned_p(self) -> Tensor | None:
        """The probability to drop as a tensor of one element, made of the strategy's own parameters.

        None: it is a number. Where a strategy has it, the layer scales with it, so that the gradient reaches those
        parameters, ``p`` tells what it is now, and can't be assigned.
        """
        return None

    @property
    def q(self) -> Tensor:
        """The probability to keep as a tensor without dimensions: what the layer scales with."""
        learned = self.learned_p
        return self._rate.q if learned is None else 1 - learned.reshape(())

    @property
    def p(self) -> float:
        """Probability to drop a unit."""
        learned = self.learned_p
        return self._p if learned is None else learned.item()

    @p.setter
    def p(self, p: float) -> None:
        if self.learns and hasattr(self, "_p"):
            raise ValueError(f"{self._who()} learns its p, so that none can be given to it; change its parameters")
        require_rate(p, f"dropout layer {self.name!r}: " if self.name else "")
        self._p = float(p)
        self._off = self._p == 0 and not self.learns
        self._rate = noises.Rate.of(self._p)

    @property
    def name(self) -> str | None:
        """The layer's name, part of the key of its masks; None: numbered by the order of the first calls."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        self._name = name
        self.word = keys.name_word(name)

    def extra_repr(self) -> str:
        """The arguments that a layer was made with, for its repr; none that a ``draw`` of its own may ignore."""
        if type(self).draw is not Dropout.draw:
            return f"p={self.p}, scaling={self.scaling}"
        axes = f"p={self.p}, mask={self.mask}, noise={self.noise}, scaling={self.scaling}"
        return axes + (f", elsewhere={self.elsewhere}" if self.elsewhere else "")

    def _fused(self, x: Tensor) -> Tensor | None:
        """Dropout of x in one kernel, in training; None where there is none that does exactly what this layer does."""
        standard = (self.mask, self.noise) == ("element", "bernoulli") and type(self).draw is Dropout.draw
        # A compiler fuses by itself, and would make a constant of p.
        if not standard or self.learns or torch.compiler.is_compiling():
            return None
        scaled = self.scaling == "inverted"
        if keys.active():
            return noises.fused(self, x, self._rate, scaled)
        # Torch's own, from the same generator; not by its function, which may be silent around a layer.
        return torch.native_dropout(x, self._p, True)[0] if scaled else None

    def _who(self) -> str:
        return f"dropout layer {self.name!r}" if self.name else type(self).__name__


def none(p: float = 0.5, **axes: Any) -> Dropout:
    """A layer that drops nothing, at the site and under the name of one that would: the baseline of a comparison.

    Args:
        p: accepted and checked like any strategy's, so that sweeps over p match, and then not used.
        axes: as for :class:`Dropout`; without effect at p = 0.
    """
    layer = Dropout(p, **axes)
    layer.p = 0.0
    return layer


def _refusal(x: Tensor) -> str:
    """What an input should be, what it is and what to do about it."""
    if x.is_nested:
        return "plain tensor, got a nested one; pass its values, x.values(), or a padded tensor"
    if x.layout is not torch.strided:
        return f"dense input, got one of layout {x.layout}; convert it with x.to_dense()"
    remedy = "pass torch.view_as_real(x), or x.abs() and x.angle()" if x.is_complex() else "convert it with x.float()"
    return f"floating-point input, got {x.dtype}; {remedy}"
