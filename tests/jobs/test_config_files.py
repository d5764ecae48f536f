"""A file of a configuration that can't be read is told in one line, with its name and the line in it."""

import os

import pytest
from hydra import initialize_config_dir

from dropout_lab.cli import UserError
from dropout_lab.jobs.composition import Composer
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.jobs.config_files import ConfigFile, names_in
from dropout_lab.jobs.plan import as_meant

HEAD = "# @package _global_\n"
BROKEN = [  # content, what is said of it
    (f"{HEAD}trainer:\n\tmax_epochs: 1\n", "line 3: .*; indent with spaces, not with tabs$"),
    (f"{HEAD}tags: [a\n", "line 3: .* that begins in line 2$"),
    (f"{HEAD}notes: caf\xe9\n".encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8$"),
    (f"{HEAD}seed: 1\n".encode("utf-16"), "line 1: the byte 0xff is not UTF-8"),
    (f"{HEAD}seed: 1\n\nseed: 2\n", "line 4: found duplicate key seed"),
    (f"{HEAD}dropout:\n  <<: 3\n", "line 3: expected a mapping"),
    (f"{HEAD}dropout: *nothing\n", "line 2: found undefined alias"),
    (f"{HEAD}tags: &a [*a]\n", "a value holds itself"),
    (f"{HEAD}notes: a\0b\n", r"line 2: the character '\\x00' can't be in YAML$"),
    (f"{HEAD}notes: !own b\n", "line 2: could not determine a constructor for the tag '!own'"),
    (f"{HEAD}seed: !!int abc\n", "invalid literal for int"),
    (f"{HEAD}seed: 1\n---\nseed: 2\n", "line 3: but found another document"),
    (f"{HEAD}seed: ${{\n", "seed: no viable alternative"),
    (f"{HEAD}on: 3\n", "the name True is no text; quote it$"),
    ("- seed\n", "it holds list, not names with values$"),
    ("seed\n", "it holds str, not names with values$"),
    ("3\n", "it holds int, not names with values$"),
    (f"{HEAD}defaults: base\n", "defaults: 'base' is no list of files$"),
    (f"{HEAD}defaults: [3]\n", "defaults: 3 is none of NAME, GROUP: NAME"),
    (f"{HEAD}defaults: [{{model: mlp, data: digits}}]\n", "defaults: {'model': 'mlp', 'data': 'digits'} is none of"),
    (f"{HEAD}defaults: [{{model: 3}}]\n", "defaults: {'model': 3} is none of"),
    (f"{HEAD}defaults: [{{3: mlp}}]\n", "defaults: {3: 'mlp'} is none of"),
    ("# what it is\n# @package _global_\nseed: 1\n", "line 2: '# @package _global_' counts in the first line only$"),
    ("# @package\nseed: 1\n", "Expected header format"),
]


@pytest.fixture
def load(tmp_path):
    """Reads a content as Hydra reads a file."""

    def read(content):
        (tmp_path / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ConfigFile("test", f"file://{tmp_path}").load_config("x")

    return read


@pytest.mark.parametrize(("content", "said"), BROKEN, ids=lambda value: repr(value)[:40])
def test_a_file_that_can_not_be_read_is_told_with_its_name(load, tmp_path, content, said):
    with pytest.raises(UserError, match=f"^{tmp_path}/x.yaml: {said}") as caught:
        load(content)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_opened_is_told(tmp_path):
    (tmp_path / "x.yaml").symlink_to("/proc/self/mem")  # nobody can read its first byte, not even root
    with pytest.raises(UserError, match=f"^{tmp_path}/x.yaml cannot be read: {os.strerror(5)}$"):
        ConfigFile("test", f"file://{tmp_path}").load_config("x")


def test_a_byte_order_mark_is_none_of_the_text(load):
    with_mark = load(f"\ufeff{HEAD}seed: 3\n")
    assert with_mark.header["package"] == "_global_"
    assert with_mark.config == load(f"{HEAD}seed: 3\n").config == {"seed": 3}


def test_numbers_are_read_as_omegaconf_reads_them_and_anchors_as_yaml_has_them():
    assert names_in("a: 1e-3\nb: 2020-01-01\nc: &c {p: 1}\nd: {<<: *c, q: 2}\n") == {
        "a": 0.001,
        "b": "2020-01-01",
        "c": {"p": 1},
        "d": {"p": 1, "q": 2},
    }
    assert names_in("# nothing but a remark\n") == {}


def test_every_file_that_hydra_reads_is_read_so(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("tags: [a\n")
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        composer = Composer([f"hydra.searchpath=[file://{tmp_path}]"])
        with pytest.raises(UserError, match=r"/experiment/broken\.yaml: line 2: "):
            composer.own(["experiment=broken"])
    for question in ("--cfg=job", "--help", "--info=config"):
        with pytest.raises(UserError, match=r"/experiment/broken\.yaml: line 2: "):
            as_meant([question, f"hydra.searchpath=[file://{tmp_path}]", "experiment=broken"])
