"""Laws of the captions: each picture has its words."""

from pages import Tags

from dropout_lab.report.captions import CAPTIONS


def test_every_picture_has_a_place_words_and_a_text_for_those_who_do_not_see_it(page):
    tags = Tags(page.read_text()).found
    assert [attributes["id"] for tag, attributes in tags if tag == "figure"] == [caption.id for caption in CAPTIONS]
    plots = [attributes for _, attributes in tags if attributes.get("class") == "plot"]
    ids = {attributes.get("id") for _, attributes in tags}
    assert all(attributes["role"] == "img" for attributes in plots)
    assert all({*attributes["aria-labelledby"].split(), attributes["aria-describedby"]} <= ids for attributes in plots)
