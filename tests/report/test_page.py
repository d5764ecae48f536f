import json
import re
from html.parser import HTMLParser

import pytest

from dropout_lab.report import build
from dropout_lab.report.captions import CAPTIONS


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_run):
    """The page of two seeds of four strategies, one of them swept over p, with names that try to break HTML."""
    folder = tmp_path_factory.mktemp("sweep")
    arms = [("inverted", None, 0.5), ("inverted", None, 0.2), ("none", "none", 0.5), ("unscaled", HOSTILE, 0.5)]
    for n, (kind, arm, p) in enumerate(arms):
        for seed in (0, 1):
            write_run(folder / f"{n}{seed}", kind=kind, arm=arm, p=p, seed=seed, epochs=4)
    write_run(folder / "90", kind="spatial", status={"status": "failed", "error": f"ValueError: {HOSTILE}"})
    return build(folder).page


HOSTILE = "</script><script>throw 1</script>&<b>"


class Tags(HTMLParser):
    """Start tags with attributes; what scripts and styles hold is not markup."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def test_the_page_fetches_nothing(page):
    text = page.read_text()
    tags = Tags(text).found
    links = [attributes[name] for _, attributes in tags for name in ("src", "href", "action") if name in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    assert "url(" not in re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    policies = [attributes["content"] for tag, attributes in tags if "http-equiv" in attributes and tag == "meta"]
    assert [policy.partition(";")[0] for policy in policies] == ["default-src 'none'"]


def test_plotly_is_inside_once(page):
    assert len(re.findall(r"plotly\.js v\d", page.read_text())) == 1


def test_names_cannot_end_a_script_or_open_a_tag(page):
    tags = [tag for tag, _ in Tags(page.read_text()).found]
    assert tags.count("script") == 3
    assert "b" not in tags
    assert data_of(page)["strategies"][3]["name"] == HOSTILE


def test_every_picture_has_a_place_words_and_a_text_for_those_who_do_not_see_it(page):
    tags = Tags(page.read_text()).found
    assert [attributes["id"] for tag, attributes in tags if tag == "figure"] == [caption.id for caption in CAPTIONS]
    plots = [attributes for _, attributes in tags if attributes.get("class") == "plot"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)


def test_accuracy_by_p_is_drawn_only_where_p_was_swept(tmp_path, write_run):
    write_run(tmp_path / "0", label="inverted dropout.p=0.2", p=0.2)
    assert 'id="rates"' not in build(tmp_path).page.read_text()
    write_run(tmp_path / "1", label="inverted dropout.p=0.5", p=0.5)
    page = build(tmp_path).page
    assert 'id="rates"' in page.read_text()
    assert [strategy["base"] for strategy in data_of(page)["strategies"]] == ["inverted", "inverted"]


def test_pictures_hold_the_numbers_of_the_runs(page):
    inverted, slow, none, unscaled = data_of(page)["strategies"]
    assert [s["name"] for s in (inverted, slow, none)] == ["inverted p=0.5", "inverted p=0.2", "none"]
    assert inverted["accuracy"]["values"] == [97.0, 96.9]
    assert inverted["depth"]["expected"]["ratio"] == [1.0, 1.414, 2.0]
    assert slow["depth"]["expected"]["ratio"] == [1.0, 1.118, 1.25]
    assert unscaled["depth"]["expected"]["gain"] == {"train": [0.5] * 3, "eval": [1.0] * 3}
    assert unscaled["depth"]["ratio"]["first"]["mean"] == [0.5, 0.3536, 0.25]
    assert none["depth"]["ratio"]["last"]["mean"] == [1.0, 1.0, 1.0]
    assert inverted["curves"]["val/acc"]["step"] == [9, 18, 27, 36]


def test_rates_of_layers_are_no_statistic_to_be_drawn(page):
    stats = {stat for s in data_of(page)["strategies"] for mode in s["activations"].values() for stat in mode["values"]}
    assert stats == {"mean", "std", "zeros", "gain", "ratio", "shift"}


def test_what_was_run_is_on_the_page(page):
    text = page.read_text()
    for fact in ("scripts/compare", "28458a5f00", "torch 2.15.0", "<code>dropout.scaling</code>", "runs ended"):
        assert fact in text, fact


def test_runs_without_activations_still_make_a_page(tmp_path, write_run):
    (write_run(tmp_path / "0") / "activations.csv").unlink()
    text = build(tmp_path).page.read_text()
    assert "none monitored" in text


def test_a_folder_of_failures_makes_a_page_that_says_so(tmp_path, write_run):
    write_run(tmp_path / "0", status={"status": "failed", "error": "RuntimeError: x"})
    text = build(tmp_path).page.read_text()
    assert "No run could be counted" in text
    assert "RuntimeError: x" in text
