import re

from pages import Tags


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
