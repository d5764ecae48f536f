"""What a target takes is read from source, and is what Python itself says of it once it is imported."""

import subprocess
import sys
from importlib import import_module
from textwrap import dedent

import pytest
from omegaconf import OmegaConf

from dropout_lab.jobs.build_errors import arguments_of
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.signatures import arguments, ignores_others


def targets(node):
    """Every ``_target_`` within a configuration."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from targets(each)


FILES = [OmegaConf.to_container(OmegaConf.load(file)) for file in CONF.rglob("*.yaml")]
CONFIGURED = sorted({target for file in FILES for target in targets(file)})


def inspected(target):
    module, _, name = target.rpartition(".")
    return arguments_of(getattr(import_module(module), name)).keys()


def public(module):
    """Targets that a module has for others, those of its own library."""
    for name, thing in vars(import_module(module)).items():
        if callable(thing) and not name.startswith("_") and thing.__module__.startswith(module.partition(".")[0]):
            yield f"{module}.{name}"


def differing(names):
    """What source and import do not agree on."""
    return {name for name in names if arguments(name) != inspected(name)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes source files where Python finds them; no two tests use a name, for a file is read once."""
    monkeypatch.syspath_prepend(tmp_path)

    def files(sources):
        for name, source in sources.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source))

    return files


@pytest.mark.parametrize("target", [*CONFIGURED, "lightning.pytorch.Trainer", "lightning.Trainer"])
def test_of_what_the_configuration_names_all_is_known(target):
    assert arguments(target) == inspected(target)


def test_keys_that_the_configuration_does_not_list_are_known():
    assert "check_val_every_n_epoch" in arguments("lightning.pytorch.Trainer")
    assert "mode" in arguments("dropout_lab.runs.checkpoints.EndOfEpoch")  # inherited from Lightning's
    assert "momentum" in arguments("torch.optim.SGD")


def test_of_every_callback_of_lightning_all_is_known():
    names = set(public("lightning.pytorch.callbacks"))
    assert len(names) > 20
    assert differing(names) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["torch.nn", "torch.optim", "torch.optim.lr_scheduler", "torchvision.models", "timm", "lightning.pytorch.loggers"],
)
def test_of_other_libraries_no_name_is_wrong(module):
    unlike = differing(public(module))
    assert any(arguments(name) for name in public(module))
    assert {name for name in unlike if arguments(name)} == set()


@pytest.mark.slow
def test_nothing_is_imported():
    known = [*(target for target in CONFIGURED if target != "datetime.timedelta"), "lightning.Trainer"]
    code = (
        "import sys; from dropout_lab.jobs.signatures import arguments; before = set(sys.modules);"
        f"assert all(map(arguments, {known}));"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert new <= sys.stdlib_module_names, new; assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_what_is_taken_by_name_counts(write):
    source = """
        def function(first, /, a, b=1, *rest, c, **others): ...
        class Made:
            def __init__(self, a, *, b): ...
        class Bound:
            def __init__(self, first, /, a): ...
        class New:
            def __new__(cls, a): ...
    """
    write({"sig_kinds.py": source})
    assert arguments("sig_kinds.function") == {"a", "b", "c"}
    assert arguments("sig_kinds.Made") == {"a", "b"}
    assert arguments("sig_kinds.Bound") == arguments("sig_kinds.New") == {"a"}
    assert differing(public("sig_kinds")) == set()


def test_what_becomes_of_other_arguments_is_known(write):
    source = """
        def ignoring(a, **others): return a
        def using(a, **others): return dict(others)
        def refusing(a): ...
        class Ignoring:
            def __init__(self, a, **others): self.a = a
        class Handing(Ignoring):
            def __init__(self, b, **others): super().__init__(**others)
        class Keeping(Ignoring):
            def __init__(self, b, **others):
                super().__init__(**others)
                self.others = others
        class Refusing(Ignoring):
            def __init__(self, b): super().__init__(b)
        class Inheriting(Ignoring): ...
        class Nothing: ...
    """
    write({"sig_others.py": source})
    ignoring = {"ignoring", "Ignoring", "Handing", "Inheriting"}
    assert {name.partition(".")[2] for name in public("sig_others") if ignores_others(name)} == ignoring
    assert not ignores_others("nowhere.Thing")


def test_a_name_is_followed_through_imports(write):
    face = """
        from sig_chain.middle import Renamed as Thing, function
        from .below import *
        from . import below
        import sig_chain.middle as other
        import sig_chain.below.deep
        Alias = other.Renamed
        Annotated: type = below.Starred
        class Derived(sig_chain.below.deep.Thing): ...
    """
    below = """
        __all__ = ["Starred"]
        class Starred:
            def __init__(self, star): ...
        class Thing:
            def __init__(self, not_handed_on): ...
    """
    deep = """
        from ..functions import function
        class Thing:
            def __init__(self, deep): ...
    """
    write(
        {
            "sig_chain/__init__.py": face,
            "sig_chain/middle.py": "from .below.deep import Thing as Renamed, function",
            "sig_chain/below/__init__.py": below,
            "sig_chain/below/deep.py": deep,
            "sig_chain/functions.py": "def function(x): ...",
        }
    )
    assert arguments("sig_chain.Thing") == arguments("sig_chain.Alias") == arguments("sig_chain.Derived") == {"deep"}
    assert arguments("sig_chain.Starred") == arguments("sig_chain.Annotated") == {"star"}
    assert arguments("sig_chain.function") == {"x"}
    assert differing(public("sig_chain")) == set()


def test_a_function_may_have_the_name_of_its_file(write):
    write({"sig_same/__init__.py": "from .sig_same import sig_same", "sig_same/sig_same.py": "def sig_same(x): ..."})
    assert arguments("sig_same.sig_same") == arguments("sig_same.sig_same.sig_same") == {"x"}


def test_a_package_may_lie_in_several_folders_that_have_no_init(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "other")
    write({"sig_spread/a.py": "from sig_spread.deep.b import f", "other/sig_spread/deep/b.py": "def f(x): ..."})
    assert arguments("sig_spread.a.f") == {"x"}


def test_bases_are_asked_where_others_are_handed_on_or_there_is_no_init(write):
    one = """
        class Closed:
            def __init__(self, closed): ...
        class Open(Closed):
            def __init__(self, open, **others): ...
        class Silent(Open): ...
        class Nothing: ...
    """
    two = """
        import sig_bases.one
        from sig_bases import one as first
        class Left(first.Closed):
            def __init__(self, left, *args, **others): ...
        class Right(sig_bases.one.Closed):
            def __init__(self, right): ...
        class Diamond(Left, Right): ...
        class Own(first.Silent):
            def __init__(self, own, **others): ...
        class Halfway(first.Nothing, first.Closed):
            def __init__(self, half, **others): ...
    """
    write({"sig_bases/one.py": one, "sig_bases/two.py": two})
    assert arguments("sig_bases.one.Silent") == {"open", "closed"}
    assert arguments("sig_bases.two.Own") == {"own", "open", "closed"}
    assert arguments("sig_bases.two.Diamond") == {"left", "right"}  # Right takes no others
    assert arguments("sig_bases.one.Nothing") == set()
    assert differing([*public("sig_bases.one"), *public("sig_bases.two")]) == set()


def test_fields_of_a_dataclass_are_its_arguments(write):
    source = """
        import dataclasses
        from dataclasses import KW_ONLY, InitVar, dataclass, field
        from typing import ClassVar, Generic, TypeVar
        T = TypeVar("T")
        @dataclass
        class Base(Generic[T]):
            base: int
        @dataclasses.dataclass(order=True)
        class Derived(Base[int]):
            own: int
            kind: ClassVar[str] = ""
            _: KW_ONLY
            made: int = field(init=False)
            given: InitVar[int] = 0
            plain = 1
        class Plain(Derived): ...
        @dataclass
        class Written(Base):
            own: int
            def __init__(self, written): ...
        @dataclass(init=False)
        class Without:
            own: int
    """
    write({"sig_data.py": source})
    assert arguments("sig_data.Derived") == arguments("sig_data.Plain") == {"base", "own", "given"}
    assert differing(public("sig_data")) == set()


def test_of_a_name_that_is_bound_twice_the_last_counts_and_of_two_branches_neither(write):
    source = """
        import sys
        def twice(old): ...
        def twice(new): ...
        if sys:
            def once(x): ...
        try:
            from sys import exit as tried
        except ImportError:
            def tried(fallback): ...
        if sys:
            def branch(x): ...
        else:
            def branch(y): ...
        class Branches:
            if sys:
                def __init__(self, x): ...
            else:
                def __init__(self, y): ...
        def replaced(x): ...
        replaced = print(replaced)
    """
    write({"sig_twice.py": source})
    assert arguments("sig_twice.twice") == {"new"}
    assert arguments("sig_twice.once") == {"x"}
    for name in ("tried", "branch", "Branches", "replaced"):
        assert arguments(f"sig_twice.{name}") == set(), name


def test_circles_end(write):
    write(
        {
            "sig_circle/a.py": "from .b import name, Class as Class\nfrom .b import *",
            "sig_circle/b.py": "from .a import name, Class as Class\nfrom .a import *",
            "sig_circle/c.py": "class Self(Self): ...\nclass One(Two): ...\nclass Two(One):\n"
            "    def __init__(self, x, **others): ...",
        }
    )
    for name in ("a.name", "a.Class", "a.other", "c.Self"):
        assert arguments(f"sig_circle.{name}") == set(), name
    assert arguments("sig_circle.c.One") == {"x"}


def test_nothing_is_known_without_source(write):
    half = """
        from sig_not_there import Base
        class Silent(Base): ...
        class Error(Exception): ...
        class Known:
            def __init__(self, known): ...
        class Mixed(Base, Known): ...
        class Same(Known, Known): ...
        def method(x): ...
        bound = Known.method
        class Open(Base):
            def __init__(self, x, **others): ...
    """
    write(
        {
            "sig_broken.py": "def f(x): ...\nclass (",
            "sig_zero.py": "def f(x): ...\n\0",
            "sig_beyond.py": "from ..above import f",
            "sig_lazy.py": "def __getattr__(name): ...",
            "sig_c.py": "def f(x): ...\nfrom math import *",
            "sig_half.py": half,
        }
    )
    for module in (
        "sig_broken",
        "sig_zero",
        "sig_beyond",
        "sig_lazy",
        "sig_c",
        "sig_not_there",
        "sig_not_there.at.all",
    ):
        assert arguments(f"{module}.f") == set(), module
    for name in ("Silent", "Error", "Mixed", "Same", "bound"):
        assert arguments(f"sig_half.{name}") == set(), name
    for target in ("", ".", "sig_half", "sig_half.", "..x", "math.sqrt"):
        assert arguments(target) == set(), target
    assert arguments("sig_half.Open") == {"x"}


def test_source_that_python_warns_about_is_read_in_silence(write):
    write({"sig_warns.py": "PATTERN = '\\d'\ndef f(x): ..."})
    assert arguments("sig_warns.f") == {"x"}
