"""The page in a real browser, without a screen and without a network."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from dropout_lab.modules.columns import Column
from dropout_lab.report import build

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=20000",
    "--enable-logging=stderr",
    "--dump-dom",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on PATH"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_run, write_look):
    """The page of two seeds of four strategies, one network of which was looked at."""
    folder = tmp_path_factory.mktemp("sweep")
    for n, kind in enumerate(("inverted", "classic", "none", "unscaled")):
        for seed in (0, 1):
            write_run(folder / f"{n}{seed}", kind=kind, arm=kind, seed=seed, epochs=4)
    write_look(folder / "00" / "look")
    return build(folder).page


def look(page, tmp_path, script, width=1280, flags=()):
    """Open the page in a frame of that width; what the script returns (it sees ``page``, a window), and the console."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<body><iframe src="{page.as_uri()}" style="width:{width}px;height:5000px;border:0"></iframe><script>
        const frame = document.querySelector("iframe");
        const wait = (ms) => new Promise((done) => setTimeout(done, ms));
        frame.onload = async () => {{
          const page = frame.contentWindow, one = (css) => page.document.querySelector(css);
          const every = (css) => [...page.document.querySelectorAll(css)];
          await wait(2000);
          let result;
          try {{ result = await (async () => {{ {script} }})(); }} catch (error) {{ result = String(error); }}
          document.body.dataset.result = JSON.stringify(result);
        }};
        </script></body>"""
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, profile, f"--window-size={width + 40},5100", *flags, frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    result = re.search(r'data-result="([^"]*)"', done.stdout)
    assert result, done.stderr[-2000:]
    return json.loads(unescape(result[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_an_error_on_a_page_would_be_seen(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("listen(); //", "listen(); nothing_of_this_name(); //"))
    result, console = look(broken, tmp_path, "return 1")
    assert result == 1
    assert "nothing_of_this_name" in " ".join(console)


def test_the_pictures_are_drawn_without_an_error(page, tmp_path):
    script = """every("details").forEach((details) => { details.open = true; });
      await wait(500);
      return every("figure").map((figure) => [figure.id,
        figure.querySelectorAll(".plot .scatterlayer .trace, .plot .heatmaplayer image").length,
        figure.querySelectorAll(".numbers tbody tr").length])"""
    drawn, console = look(page, tmp_path, script)
    assert not console
    assert [name for name, *_ in drawn] == ["score", "curves", "activations", "profile", "gain", "ratio", "heatmap"]
    traces = {name: count for name, count, _ in drawn}
    # A mark and seeds each; a line and a band each; a line in two panels each; two theory curves a panel; one map.
    panels = {"activations": 8, "profile": 8, "gain": 12}
    assert traces == {"score": 8, "curves": 8, **panels, "ratio": 6, "heatmap": 1}
    assert all(rows for *_, rows in drawn)


def test_the_controls_do_what_they_say(page, tmp_path):
    script = """
    const result = {};
    const slider = one("#p");
    slider.value = 0.75;
    slider.dispatchEvent(new page.Event("input"));
    result.sentence = one("#p-sentence").textContent;
    result.dropped = one("#dropped").textContent;
    const names = () => [...new Set(one("#ratio .plot").data.map((trace) => trace.name))];
    const choose = (css, value) => {
      one(css).value = value;
      one(css).dispatchEvent(new page.Event("change"));
    };
    one(".chip").click();
    result.without = names();
    result.pressed = one(".chip").getAttribute("aria-pressed");
    one(".chip").click();
    result.again = names();
    choose("#curves select", "val/loss");
    result.axis = one("#curves .plot").layout.yaxis.title.text;
    const input = [...one("#activations select").options].find((o) => o.text.endsWith("(dropout, input)"));
    const before = one("#activations .plot").data[1].y[0];
    choose("#activations select", input.value);
    result.otherLayer = one("#activations .plot").data[1].y[0] !== before;
    choose("#profile select", "zeros");
    const profile = one("#profile .plot").data.filter((trace) => trace.name === "inverted");
    result.profile = profile.map((trace) => trace.y);
    result.layers = profile[0].customdata;
    const laws = (x) => one("#gain .plot").data.filter((t) => t.name === "theory" && (t.xaxis ?? "x") === x);
    result.laws = ["x", "x2"].map((x) => laws(x).map((trace) => trace.y).sort());
    choose("#ratio select", "first");
    result.first = one("#ratio .plot").data.find((trace) => trace.name === "inverted").y;
    choose("#heatmap select[name=quantity]", "probe ratio");
    result.map = one("#heatmap .plot").data[0].z.length;
    every(".chip").forEach((chip) => chip.click());
    result.empty = !one("#gain .empty").hidden;
    every(".chip").forEach((chip) => chip.click());
    result.unreachable = every("button, select, input, summary, a").filter((e) => e.tabIndex < 0).length;
    page.Plotly.downloadImage = (...what) => { result.saved = what; };  // a real download keeps the browser from ending
    one("#ratio .save").click();
    const image = await page.Plotly.toImage(...result.saved);
    const shown = ["theory", "unscaled"].map((name) => decodeURIComponent(image).includes(name));
    result.saved = [result.saved[1].filename, shown];
    return result;
    """
    result, console = look(page, tmp_path, script)
    assert not console
    assert result["sentence"].startswith("75 % of the units become 0, so a mean of 1.00 falls to 0.25.")
    assert "1/(1 − p) = 4," in result["sentence"]
    assert result["dropped"] == "0.25"
    assert "inverted" not in result["without"]
    assert result["pressed"] == "false"
    assert "inverted" in result["again"]
    assert result["axis"] == "validation NLL, nats"
    assert result["otherLayer"]
    assert result["profile"] == [[0.5, 0.75] * 3, [0.5, 0.5] * 3]  # of inverted, p = 0.5
    assert result["layers"][:3] == ["01_conv1_dropout_in", "01_conv1_dropout", "04_conv2_dropout_in"]
    assert result["laws"] == [[[0.5] * 3, [1] * 3]] * 2  # in training of unscaled and inverted, in eval of classic
    assert result["first"] == [1, 1.414, 2]
    assert result["map"] == 6
    assert result["empty"]
    assert result["unreachable"] == 0
    assert result["saved"] == ["dropout-lab-ratio", [True, True]]


def test_the_menus_have_every_number_of_the_test_part_in_its_unit(tmp_path, write_run):
    """Of a module that does not classify: in titles, on axes and in the numbers below."""
    measured = (
        Column("rmse", "RMSE", decimals=1),
        Column("loss", "NLL", "nats"),
        Column("auroc/test", "AUROC", "%", 2),
    )
    for n, p in enumerate((0.2, 0.5)):
        final = {"test/rmse": 1234.56 + n, "auroc/test": 0.9}
        config = {"columns": [column._asdict() for column in measured]}
        write_run(tmp_path / "runs" / str(n), p=p, epochs=2, final=final, config=config)
    script = """
    const seen = () => ["score", "rates"].map((id) => {
      const figure = one(`#${id}`), { layout } = figure.querySelector(".plot");
      figure.querySelector("details").open = true;
      figure.querySelector("details").ontoggle();
      const title = (id === "score" ? layout.xaxis : layout.yaxis).title.text;
      const cells = [...figure.querySelector("tbody tr").querySelectorAll("td")].map((cell) => cell.textContent);
      return [figure.querySelector("h3").textContent, title, cells];
    });
    const found = { menu: [...one("#score select").options].map((option) => option.text), first: seen() };
    for (const select of every("#score select, #rates select")) {
      select.value = "auroc/test";
      select.dispatchEvent(new page.Event("change"));
    }
    return { ...found, last: seen() };
    """
    result, console = look(build(tmp_path / "runs").page, tmp_path, script)
    assert not console
    assert result["menu"] == ["RMSE", "NLL", "AUROC"]
    assert result["first"] == [
        ["Test RMSE", "test RMSE", ["1234.6", "–", "1234.6"]],
        ["Test RMSE by p", "test RMSE", ["0.2", "1234.6", "–"]],
    ]
    assert result["last"] == [
        ["Test AUROC", "test AUROC, %", ["90.00", "–", "90.00"]],
        ["Test AUROC by p", "test AUROC, %", ["0.2", "90.00", "–"]],
    ]


def test_the_picture_of_a_look_is_shown(page, tmp_path):
    """The page's own security policy lets it through."""
    script = """const image = one(".look img");
      image.scrollIntoView();
      await wait(500);
      return [image.naturalWidth, image.getBoundingClientRect().width > 700, image.alt]"""
    shown, console = look(page, tmp_path, script)
    assert not console
    assert shown == [1, True, "activation maps"]


def test_what_scrolls_can_be_scrolled_with_the_keyboard(page, tmp_path):
    script = """every("details").forEach((details) => { details.open = true; });
      await wait(500);
      const scrolls = (e) => /auto|scroll/.test(page.getComputedStyle(e).overflow)
        && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1);
      const found = every("main *").filter(scrolls);
      const reachable = (e) => e.tabIndex >= 0 || e.querySelector("button, select, input, a");
      return [found.length > 3, found.filter((e) => !reachable(e)).map((e) => e.outerHTML.slice(0, 80))]"""
    found, console = look(page, tmp_path, script, width=320)
    assert not console
    assert found == [True, []]


@pytest.mark.parametrize("width", [360, 390, 768])
def test_nothing_is_wider_than_a_phone(page, tmp_path, width):
    script = """return [page.innerWidth, page.document.documentElement.scrollWidth,
        ...every(".plot .main-svg").map((svg) => svg.getBoundingClientRect().right)]"""
    (inner, *widths), console = look(page, tmp_path, script, width=width)
    assert not console
    assert inner == width
    assert max(widths) <= width


@pytest.mark.parametrize(("scheme", "background"), [(0, "rgb(21, 23, 27)"), (1, "rgb(253, 253, 251)")])
def test_the_page_follows_the_colour_scheme(page, tmp_path, scheme, background):
    script = """return [page.getComputedStyle(one("body")).backgroundColor, one("#gain .plot").layout.font.color,
        page.getComputedStyle(one("body")).color]"""
    (found, text, body), console = look(
        page, tmp_path, script, flags=[f"--blink-settings=preferredColorScheme={scheme}"]
    )
    assert not console
    assert found == background
    assert "rgb({}, {}, {})".format(*(int(text[n : n + 2], 16) for n in (1, 3, 5))) == body
