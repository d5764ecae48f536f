"""Values of the axes, and of p."""

import math

import pytest

from dropout_lab.dropout import Dropout
from dropout_lab.dropout.axes import eval_factor, require_one_of, require_rate


@pytest.mark.parametrize(
    ("axis", "allowed"),
    [
        ("mask", "element, channel or sample"),
        ("noise", "bernoulli or gaussian"),
        ("scaling", "inverted, classic or unscaled"),
        ("elsewhere", "element or sample, or null"),
    ],
)
def test_an_unknown_kind_is_refused(axis: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{axis}=spatial: must be {allowed}$"):
        Dropout(0.5, **{axis: "spatial"})  # type: ignore[arg-type]


def test_null_is_a_kind_where_it_is_allowed() -> None:
    require_one_of("elsewhere", None, ("element",), null=True)
    with pytest.raises(ValueError, match=r"^elsewhere=None: must be element or sample$"):
        require_one_of("elsewhere", None, ("element", "sample"))


@pytest.mark.parametrize(
    ("p", "error"), [(1, ValueError), (math.nan, ValueError), (True, TypeError), ("0.5", TypeError)]
)
def test_what_is_no_rate_is_refused_and_whose_it_is_told(p: object, error: type[Exception]) -> None:
    with pytest.raises(
        error, match=r"^placement\.p=.*: must be the probability to DROP a unit, a number with 0 <= p < 1$"
    ):
        require_rate(p, "placement.")


def test_classic_dropout_alone_multiplies_in_eval() -> None:
    assert [eval_factor(scaling, 0.2) for scaling in ("inverted", "classic", "unscaled")] == [1, 0.8, 1]
