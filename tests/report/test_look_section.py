"""Laws of the section about networks that looked at something."""

import re
from base64 import b64decode
from html import unescape

import pytest

from dropout_lab.report import build
from dropout_lab.report.look_section import MOST

HOSTILE = "</p><script>throw 1</script>&<b>"


def page(folder):
    return build(folder).page.read_text()


def test_a_run_that_was_looked_at_is_shown_with_picture_predictions_and_means(tmp_path, write_run, write_look):
    write_look(write_run(tmp_path / "0") / "look")
    text = page(tmp_path)
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]*)" alt="activation maps"', text)
    assert b64decode(encoded) == (tmp_path / "0" / "look" / "look.png").read_bytes()
    for shown in (
        "A network looking at something",
        "net looking at china.jpg",
        "dropout off cat (87.5%)",
        "dog (12.5%)",
    ):
        assert shown in text, shown
    assert "mean element-wise" in text
    assert "Dropout with p = 0.5 after 03_relu." in text


def test_without_a_look_there_is_no_such_section(tmp_path, write_run):
    write_run(tmp_path / "0")
    assert "looking at something" not in page(tmp_path)


def test_random_weights_are_called_so(tmp_path, write_run, write_look):
    write_look(write_run(tmp_path / "0") / "look", warning="RANDOM WEIGHTS: it means nothing")
    assert "<strong>RANDOM WEIGHTS: it means nothing</strong>" in page(tmp_path)


def test_a_look_without_a_run_is_shown_and_is_no_missing_run(tmp_path, write_run, write_look):
    write_run(tmp_path / "0")
    write_look(tmp_path / "look" / "vgg16")
    text = page(tmp_path)
    assert "net looking at china.jpg" in text
    assert "every run is counted" in text


def test_words_of_a_look_cannot_open_a_tag(tmp_path, write_run, write_look):
    means, predictions = {HOSTILE: {HOSTILE: HOSTILE}}, {HOSTILE: [[HOSTILE, 1.0]]}
    words = dict.fromkeys(("title", "alt", "warning"), HOSTILE) | {"sentences": [HOSTILE]}
    write_look(write_run(tmp_path / "0") / "look", means=means, predictions=predictions, **words)
    text = page(tmp_path)
    assert "throw 1" in text
    assert "<script>throw" not in text
    assert "<b>" not in text.partition("<script")[0]


@pytest.mark.parametrize("broken", ["look.json", "look.png"])
def test_a_broken_look_is_named_and_costs_nothing_else(tmp_path, write_run, write_look, broken):
    write_look(write_run(tmp_path / "0") / "look")
    if broken == "look.json":
        (tmp_path / "0" / "look" / broken).write_text("{")
    else:
        (tmp_path / "0" / "look" / broken).unlink()
    assert re.search(r"<p><code>0/look</code> cannot be shown: \w+Error", unescape(page(tmp_path)))


def test_a_page_shows_a_few_looks_in_the_order_of_the_runs_and_names_the_others(tmp_path, write_run, write_look):
    for n in range(MOST + 4):
        write_look(write_run(tmp_path / str(n), seed=n) / "look", title=f"look {n}")
    text = page(tmp_path)
    assert re.findall(r"<h3>(look \d+)</h3>", text) == [f"look {n}" for n in range(MOST)]
    assert text.count('alt="activation maps"') == MOST
    assert all(f"<code>{n}/look</code>" in text for n in range(MOST, MOST + 4))
