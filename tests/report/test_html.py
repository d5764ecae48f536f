"""Laws of the HTML of the page: names stay names, and each part says what there is."""

from pages import HOSTILE, Tags, data_of

from dropout_lab.report import build


def test_names_cannot_end_a_script_or_open_a_tag(page):
    tags = [tag for tag, _ in Tags(page.read_text()).found]
    assert tags.count("script") == 3
    assert "b" not in tags
    assert data_of(page)["strategies"][3]["name"] == HOSTILE


def test_accuracy_by_p_is_drawn_only_where_p_was_swept(tmp_path, write_run):
    write_run(tmp_path / "0", label="inverted dropout.p=0.2", p=0.2)
    assert 'id="rates"' not in build(tmp_path).page.read_text()
    write_run(tmp_path / "1", label="inverted dropout.p=0.5", p=0.5)
    page = build(tmp_path).page
    assert 'id="rates"' in page.read_text()
    assert [strategy["base"] for strategy in data_of(page)["strategies"]] == ["inverted", "inverted"]


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
