"""The rate as a function of training time: in range, from where it starts to where it ends, for each site by itself."""

import io
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lab.dropout import Dropout, Placement, ScheduledRates, install, none, rates_of, require_same_rates
from dropout_lab.dropout.schedules import Schedule, constant, cosine, curriculum, early, late, linear

SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "linear down": partial(linear, start=1, end=0.2),
    "cosine": cosine,
    "cosine down": partial(cosine, start=1, end=0),
    "early": partial(early, cutoff=0.3),
    "early constant": partial(early, cutoff_epoch=3, epochs=10, shape="constant"),
    "late": partial(late, cutoff=0.3),
    "curriculum": curriculum,
}
# (schedule, at t = 0, just before 0.3, at 0.3, 0.5, 1), as shares of p.
TABLE = [
    ("constant", (1, 1, 1, 1, 1)),
    ("linear", (0, 0.3, 0.3, 0.5, 1)),
    ("linear down", (1, 0.76, 0.76, 0.6, 0.2)),
    ("cosine", (0, 0.2061, 0.2061, 0.5, 1)),
    ("cosine down", (1, 0.7939, 0.7939, 0.5, 0)),
    ("early", (1, 0, 0, 0, 0)),
    ("early constant", (1, 1, 0, 0, 0)),
    ("curriculum", (0, 0.9502, 0.9502, 0.9933, 0.99995)),
    ("late", (0, 0, 1, 1, 1)),
]
RATE, PART = st.floats(0, 1, exclude_max=True), st.floats(0, 1)
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@pytest.mark.parametrize(("name", "shares"), TABLE)
def test_a_schedule_is_its_formula(name: str, shares: tuple[float, ...]) -> None:
    times = (0, math.nextafter(0.3, 0), 0.3, 0.5, 1)
    assert [SCHEDULES[name](0.4, t) for t in times] == pytest.approx([0.4 * share for share in shares], abs=1e-4)


@every_schedule
@given(p=RATE, t=PART)
def test_a_schedule_gives_a_rate_no_higher_than_the_layers(name: str, p: float, t: float) -> None:
    assert 0 <= SCHEDULES[name](p, t) <= p


@every_schedule
@given(p=RATE, t=PART)
def test_a_ramp_over_depth_stays_a_ramp(name: str, p: float, t: float) -> None:
    assert SCHEDULES[name](p / 2, t) == pytest.approx(SCHEDULES[name](p, t) / 2)


@pytest.mark.parametrize("schedule", [linear, cosine])
@given(p=RATE, start=PART, end=PART)
def test_both_ends_are_exact(schedule: Callable[..., float], p: float, start: float, end: float) -> None:
    assert schedule(p, 0, start=start, end=end) == p * start
    assert schedule(p, 1, start=start, end=end) == pytest.approx(p * end, rel=1e-15)


@given(p=RATE, t=PART, cutoff=PART)
def test_constant_early_and_late_share_the_time(p: float, t: float, cutoff: float) -> None:
    assert early(p, t, cutoff=cutoff, shape="constant") + late(p, t, cutoff=cutoff) == p


@given(p=RATE, t=PART, cutoff=PART)
def test_early_falls_in_a_line_from_p_to_0_at_the_cutoff_and_stays_there(p: float, t: float, cutoff: float) -> None:
    assert early(p, 0, cutoff=cutoff) == (p if cutoff else 0)
    assert early(p, max(t, cutoff), cutoff=cutoff) == 0
    half = early(p, t * cutoff / 2, cutoff=cutoff), early(p, cutoff / 2, cutoff=cutoff)
    assert half == pytest.approx((p * (1 - t / 2), p / 2) if cutoff > 1e-300 else half)


@given(p=RATE, gamma=st.floats(1e-3, 1e3), t=PART)
def test_curriculum_keeps_units_as_its_paper_says(p: float, gamma: float, t: float) -> None:
    keep = 1 - p
    assert 1 - curriculum(p, t, gamma=gamma) == pytest.approx((1 - keep) * math.exp(-gamma * t) + keep)
    assert curriculum(p, 0, gamma=gamma) == 0


@pytest.mark.parametrize("name", ["early", "early constant", "late", "curriculum"])
@given(p=RATE, one=PART, other=PART)
def test_early_never_rises_and_late_and_curriculum_never_fall(name: str, p: float, one: float, other: float) -> None:
    before, after = (SCHEDULES[name](p, t) for t in sorted([one, other]))
    assert before >= after if name.startswith("early") else before <= after


@pytest.mark.parametrize("schedule", [early, late])
@given(epochs=st.integers(1, 400), steps=st.integers(1, 999), data=st.data())
def test_a_cutoff_in_epochs_is_at_the_first_step_of_that_epoch(
    schedule: Callable[..., float], epochs: int, steps: int, data: st.DataObject
) -> None:
    cutoff = data.draw(st.integers(1, epochs))
    first, total = cutoff * steps, epochs * steps
    options = {"cutoff_epoch": cutoff, "epochs": epochs}
    before, at = (schedule(0.5, step / total, **options) for step in (first - 1, first))
    assert (before > 0, at > 0) == ((True, False) if schedule is early else (False, True))
    assert at == schedule(0.5, first / total, cutoff=cutoff / epochs)


BAD = [
    ({"cutoff": 0.3, "cutoff_epoch": 3, "epochs": 9}, "cutoff_epoch=3: must be null where cutoff=0.3 is given"),
    ({"cutoff_epoch": 3}, "cutoff_epoch=3: must be null where epochs=None says no length; give cutoff"),
    ({"cutoff_epoch": 3, "epochs": -1}, "cutoff_epoch=3: must be null where epochs=-1 says no length; give cutoff"),
    ({"cutoff_epoch": 9.5, "epochs": 9}, "cutoff_epoch=9.5: must be a number with 0 <= cutoff_epoch <= epochs=9"),
    ({"cutoff_epoch": math.nan, "epochs": 9}, "cutoff_epoch=nan: must be a number with 0 <= cutoff_epoch <= epochs=9"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
@pytest.mark.parametrize("schedule", [early, late])
def test_a_cutoff_is_one_within_training(schedule: Callable[..., float], options: Any, message: str) -> None:
    for t in (0, 1):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            schedule(0.5, t, **options)


def test_shapes_and_gammas_that_there_are_not_are_refused_at_any_time() -> None:
    for t in (0, 1):
        with pytest.raises(ValueError, match=r"^shape=steep: must be linear or constant$"):
            early(0.5, t, shape="steep")
        for gamma in (0, -1, math.inf, math.nan):
            with pytest.raises(ValueError, match=rf"^gamma={gamma}: must be a finite number > 0$"):
                curriculum(0.5, t, gamma=gamma)


@every_schedule
@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_time_runs_from_0_to_1(name: str, t: float) -> None:
    with pytest.raises(ValueError, match=f"^t={t}: must be a number with 0 <= t <= 1$"):
        SCHEDULES[name](0.5, t)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize(
    ("schedule", "argument"),
    [(linear, "start"), (linear, "end"), (cosine, "start"), (cosine, "end"), (early, "cutoff"), (late, "cutoff")],
)
def test_shares_and_cutoffs_lie_between_0_and_1(schedule: Any, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument}={value}: must be a number with 0 <= {argument} <= 1$"):
        ScheduledRates(nn.Sequential(Dropout(0.5)), partial(schedule, **{argument: value}))


# On a model


def net(make: Callable[..., nn.Module] = Dropout) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    install(model, make, Placement("activations", p=0.4, rate="linear"))
    return model


def rates(model: nn.Module) -> list[float]:
    return [layer.p for layer in model.modules() if isinstance(layer, Dropout)]


def test_every_site_follows_the_schedule_from_its_own_rate() -> None:
    model = net()
    scheduled = ScheduledRates(model, linear)
    found = []
    for step in (0, 5, 10, 2):
        scheduled.set(step, 10)
        found.append(rates(model))
    assert found == [[0, 0], [0.1, 0.2], [0.2, 0.4], pytest.approx([0.04, 0.08])]


@every_schedule
@given(steps=st.lists(st.integers(0, 40), max_size=4), step=st.integers(0, 40))
def test_rates_follow_from_the_step_alone_so_that_a_resumed_run_has_the_same(
    name: str, steps: list[int], step: int
) -> None:
    whole, resumed = (nn.Sequential(Dropout(0.2), Dropout(0.4)) for _ in range(2))
    at_it = ScheduledRates(whole, SCHEDULES[name])
    for each in [*steps, step]:
        at_it.set(each, 40)
    ScheduledRates(resumed, SCHEDULES[name]).set(step, 40)
    assert rates(whole) == rates(resumed)


def test_layers_that_drop_nothing_stay_so() -> None:
    model = net(none)
    ScheduledRates(model, partial(linear, start=1, end=0.5)).set(1, 2)
    assert rates(model) == [0, 0]


@every_schedule
def test_classic_rates_do_not_change(name: str) -> None:
    model = net(partial(Dropout, scaling="classic"))
    if name == "constant":
        ScheduledRates(model, SCHEDULES[name]).set(5, 10)
        assert rates(model) == [0.2, 0.4]
        return
    with pytest.raises(
        ValueError, match=r"'01_1' is classic, and a schedule can't change its p: it multiplies by 1-p in"
    ):
        ScheduledRates(model, SCHEDULES[name])
    assert rates(model) == [0.2, 0.4]


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_steps_lie_within_training(step: int, total: int) -> None:
    with pytest.raises(ValueError, match=rf"step must be in \[0, total_steps\].*got {step} and {total}"):
        ScheduledRates(net(), linear).set(step, total)


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(part for layer in layers for part in (nn.Linear(4, 4), layer)))


@pytest.mark.slow
def test_rates_are_those_of_our_layers_by_name_or_path() -> None:
    model = chain(nn.ReLU(), nn.Dropout(0.1), Dropout(0.2, scaling="classic"))
    (installed,) = install(model, Dropout, Placement("activations", p=0.3))
    assert rates_of(model) == {
        installed.name: {"p": 0.3, "scaling": "inverted", "learned": False},
        "5": {"p": 0.2, "scaling": "classic", "learned": False},
    }
    assert rates_of(nn.Linear(2, 2)) == {}


def test_rates_survive_a_checkpoint_of_plain_values() -> None:
    model, file = chain(Dropout(0.2, scaling="classic")), io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "rates": rates_of(model)}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)["rates"]
    assert saved == rates_of(model)
    require_same_rates(model, saved)


SAME = [
    (Dropout(0.5, scaling="classic"), Dropout(0.5, scaling="classic", mask="sample")),
    (Dropout(0.5), Dropout(0.2)),
    (Dropout(0.5), Dropout(0.2, scaling="unscaled")),
    (none(0.5), Dropout(0.5)),
    (Dropout(0.0, scaling="classic"), Dropout(0.5)),
    (Dropout(0.5), nn.Identity()),
    (nn.Identity(), Dropout(0.5)),
]
DIFFERENT = [
    (Dropout(0.5, scaling="classic"), Dropout(0.2, scaling="classic")),
    (Dropout(0.5, scaling="classic"), Dropout(0.5)),
    (Dropout(0.5), Dropout(0.5, scaling="classic")),
    (Dropout(0.5, scaling="classic"), none(0.5)),
    (Dropout(0.5, scaling="classic"), nn.Identity()),
    (nn.Identity(), Dropout(0.5, scaling="classic")),
]


@pytest.mark.parametrize(("before", "after"), [*SAME, *DIFFERENT])
def test_rates_are_refused_exactly_where_the_eval_output_changes(before: nn.Module, after: nn.Module) -> None:
    old, new = chain(before).eval(), chain(after).eval()
    new.load_state_dict(old.state_dict())
    x = torch.randn(3, 4)
    if torch.allclose(old(x), new(x)):
        assert (before, after) in SAME
        require_same_rates(new, rates_of(old))
    else:
        with pytest.raises(ValueError, match=r"dropout layer '1': the checkpoint has .*so p belongs to its checkpoint"):
            require_same_rates(new, rates_of(old))


def test_the_reason_names_layer_and_rates() -> None:
    old, new = (chain(Dropout(0.1), Dropout(p, scaling="classic")) for p in (0.5, 0.2))
    new[3].name = old[3].name = "03_relu"  # type: ignore[assignment]
    message = (
        r"layer '03_relu': the checkpoint has classic p=0.5 \(times 0.5 in eval\), this model has classic p=0.2 "
        r"\(times 0.8 in eval\); classic dropout multiplies by 1-p in eval"
    )
    with pytest.raises(ValueError, match=message):
        require_same_rates(new, rates_of(old))
    with pytest.raises(ValueError, match="this model has no such layer"):
        require_same_rates(nn.Linear(4, 4), rates_of(old))
