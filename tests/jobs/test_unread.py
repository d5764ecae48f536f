"""A file with settings that nothing reads is refused, and told by its name and what to write there."""

import pytest
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan

HEAD = "# @package _global_\n"
REFUSED = [  # file, content, what is said of it
    ("experiment/x", "optimizer: {lr: 0.5}\n", ": .* as those of 'experiment'; .* has to be '# @package _global_'"),
    (
        "debug/x",
        "# @packge _global_\nseed: 3\n",
        ": .* as those of 'debug'; its first line has to be '# @package _global_'",
    ),
    ("experiment/x", "# @package own\nseed: 1\n", ": nothing reads what '# @package own' makes of it; write '# @pack"),
    ("experiment/x", f"{HEAD}seed: 1\noptimzer: {{lr: 1}}\n", ", line 3: .* 'optimzer'; did you mean 'optimizer'?"),
    ("experiment/x", f"{HEAD}width: 64\n", r", line 2: .* key of your own is used by \${width}, or .* conf/train.yaml"),
    ("experiment/x", f"{HEAD}own: {{a: 1, b: '${{own.a}}'}}\n", ", line 2: nothing reads 'own'"),
    (
        "model/x",
        f"{HEAD}widths: [3]\n",
        ", line 2: .* 'widths' outside of 'model'; leave the line '# @package _global_'",
    ),
]
TAKEN = [  # content, words, key of what it sets, its value
    (f"\ufeff{HEAD}optimizer: {{lr: 0.5}}\n", "", "optimizer.lr", 0.5),
    ("# @package trainer\nmax_epochs: 2\n", "", "trainer.max_epochs", 2),
    (
        f"{HEAD}width: 64\nmodel: {{widths: ['${{width}}']}}\nverdict: {{claims: []}}\n",
        "model=mlp",
        "model.widths",
        [64],
    ),
    (f"{HEAD}width: 64\nown: {{a: 1}}\n", "model=mlp model.widths=['${width}'] +own.b=2", "model.widths", [64]),
]


@pytest.fixture
def planned(tmp_path):
    def planned(file, content, *words):
        path = tmp_path / f"{file}.yaml"
        path.parent.mkdir()
        path.write_text(content)
        chosen = file.replace("/", "=")
        return plan([f"hydra.searchpath=[file://{tmp_path}]", chosen, "hydra.run.dir=/nowhere", *words]).jobs[0]

    return planned


@pytest.mark.parametrize(("file", "content", "said"), REFUSED)
def test_settings_that_nothing_reads_are_refused(planned, tmp_path, file, content, said):
    with pytest.raises(UserError, match=f"^{tmp_path}/{file}.yaml{said}"):
        planned(file, content)


@pytest.mark.slow
@pytest.mark.parametrize(("content", "words", "key", "value"), TAKEN)
def test_settings_that_something_reads_are_taken(planned, content, words, key, value):
    assert OmegaConf.select(planned("experiment/x", content, *words.split()).own, key) == value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${nowhere}", "Interpolation key 'nowhere' not found"),
        ("${own:1}", "Unsupported .* own"),
        ("${seed}", "Recursive"),
    ],
)
def test_an_interpolation_that_leads_nowhere_is_told_with_its_file(planned, tmp_path, value, said):
    with pytest.raises(UserError, match=rf"^seed: {said}.* \({tmp_path}/experiment/x.yaml, line 3\)$"):
        planned("experiment/x", f"{HEAD}tags: [a]\nseed: {value}\n")


def test_an_interpolation_of_a_word_is_not_said_to_be_a_files():
    with pytest.raises(UserError, match=r"^seed: Interpolation key 'nowhere' not found$"):
        plan(["seed=${nowhere}"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEAD}defaults: [x]\n", "experiment=x: a file there has itself in its defaults list"),
        (
            f"{HEAD}defaults: [base/nothing]\n",
            r"base=nothing: no such option; .*\(in the defaults list of experiment/x.yaml",
        ),
        (f"{HEAD}hydra: null\n", "experiment=x: Hydra can't compose that"),
        (f"{HEAD}run: 3\n", "run: is filled in when a job starts"),
        (f"{HEAD}notes: {{1: a, b: c}}\n", "names of one kind only"),
    ],
)
def test_what_can_not_be_composed_is_one_line(planned, content, said):
    with pytest.raises(UserError, match=said) as caught:
        planned("experiment/x", content)
    assert "\n" not in str(caught.value)


def test_options_of_a_folder_that_is_searched_are_known_where_a_word_is_wrong(planned):
    with pytest.raises(UserError, match=r"did you mean 'optimizer\.lr'"):
        planned("experiment/x", f"{HEAD}seed: 1\n", "optimzer.lr=1")
    with pytest.raises(UserError, match=r"did you mean 'xyz'.* xyz"):
        planned("debug/xyz", f"{HEAD}seed: 1\n", "debug=xyzz")


def test_an_option_that_describes_nothing_is_refused(planned):
    with pytest.raises(UserError, match=r"^model needs a _target_"):
        planned("model/x", "{}\n")
