"""What could not be built is told by the name of its key."""

import datetime

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.build_errors import arguments_of, diagnose, telling


class Base:
    def __init__(self, size: int = None, rate: float = 0.5) -> None:  # noqa: RUF013  # a wrong type, as many have
        if rate > 1:
            raise RuntimeError("inside")
        if rate < 0:
            raise ValueError(f"rate={rate}: must be a number >= 0")
        if size == 0:
            raise TypeError(f"model.part.size={size}: must be a number of things")


class Own(Base):
    def __init__(self, *, kind: "Unknown" = "a", **others: object) -> None:  # noqa: F821
        super().__init__(**others)


def told(**keys):
    cfg = OmegaConf.create({"model": {"part": {"_target_": f"{__name__}.Own", **keys}}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg.model)
    return diagnose(cfg, caught.value)


def test_a_node_within_a_section_is_named_and_a_base_classs_keys_are_known():
    assert told(sise=1) == f"model.part.sise: {__name__}.Own takes no such key; did you mean 'size'?"
    assert told(xyz=1) == f"model.part.xyz: {__name__}.Own takes no such key; allowed: size, rate, kind"


def test_a_value_is_held_against_the_type_that_the_signature_states():
    assert told(rate="high") == "model.part.rate=high: must be float"


def test_what_a_constructor_says_of_a_value_is_told_by_the_values_place_in_the_configuration():
    assert told(rate=-1) == "model.part.rate=-1: must be a number >= 0"
    assert told(rate=-1, size="x") == "model.part.rate=-1: must be a number >= 0"  # its word before its signature's
    assert told(size=0) == "model.part.size=0: must be a number of things"


def test_nothing_is_null_as_in_the_configuration():
    assert told(rate=None) == "model.part.rate=null: must be float"


def test_values_that_a_signature_is_wrong_or_unclear_about_are_not_blamed():
    assert told(rate=2, size=None, kind=3) == "model.part: RuntimeError: inside"


def make(kind="a", **options):
    return Own(kind=kind, **options)


class Making:
    def __init__(self, **options: object) -> None:
        make(**options)


@pytest.mark.parametrize("target", ["make", "Making"])
def test_a_key_that_is_refused_by_what_it_is_handed_on_to_is_told_in_its_words(target):
    said = "model.part: TypeError: Base.__init__() got an unexpected keyword argument 'sise'"
    assert told(_target_=f"{__name__}.{target}", sise=1) == said


def test_a_key_that_is_handed_on_and_near_to_one_of_the_target_s_own_is_told_by_that():
    assert (
        told(_target_=f"{__name__}.make", kinds=1)
        == f"model.part.kinds: {__name__}.make takes no such key; did you mean 'kind'?"
    )


def test_a_class_written_in_c_is_known_by_its_name_alone():
    assert arguments_of(datetime.timedelta) == {}
    assert told(_target_="datetime.timedelta", foo=1) == "model.part.foo: datetime.timedelta takes no such key"


def test_a_target_that_is_not_there_is_told_with_the_nearest():
    nearest = f"{__name__} has no attribute 'Onw'; did you mean 'Own'?"
    assert told(_target_=f"{__name__}.Onw") == f"model.part._target_={__name__}.Onw: {nearest}"


class Ignoring:
    def __init__(self, size: int = 1, **options: object) -> None:
        pass


class Handing(Ignoring):
    def __init__(self, kind: str = "a", **options: object) -> None:
        super().__init__(**options)


class Keeping(Ignoring):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options


@pytest.mark.parametrize("target", ["Ignoring", "Handing"])
def test_a_key_that_a_target_takes_and_does_nothing_with_is_refused(target):
    cfg = OmegaConf.create({"model": {"part": {"_target_": f"{__name__}.{target}", "sise": 1}}})
    said = f"^model.part.sise: .*{target} takes no such key; did you mean 'size'"
    with pytest.raises(UserError, match=said), telling(cfg, "model"):
        instantiate(cfg.model)


def test_a_key_that_a_target_keeps_is_taken_and_one_of_the_labs_own():
    cfg = OmegaConf.create({"model": {"_target_": f"{__name__}.Keeping", "sise": 1}})
    with telling(cfg, "model"):
        instantiate(cfg.model)
    cfg = OmegaConf.create({"optimizer": {"_target_": f"{__name__}.Ignoring", "match": None}})
    with telling(cfg, "optimizer"):
        instantiate(cfg.optimizer)
