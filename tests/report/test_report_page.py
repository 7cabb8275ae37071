"""The report in a browser: charts, keyboard, phone, themes, and no requests to other servers."""

import pytest

from browsing import until

DRAWN = "body[data-drawn=yes]"
CONTRAST = """
() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] > 0) { return color.slice(0, 3); }
    }
    return [255, 255, 255];
  };
  const poor = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !parent.checkVisibility() || parent.closest("script, :disabled")) { continue; }
    const style = getComputedStyle(parent);
    const color = parse(parent instanceof SVGElement ? style.fill : style.color).slice(0, 3);
    const [a, b] = [luminance(color), luminance(ground(parent))].sort((x, y) => y - x);
    looked += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) { poor.push(text); }
  }
  return { poor, looked };
}
"""


@pytest.fixture(scope="module")
def opened(open_shared_page, small_page):
    """A function that returns the page, with all drawn: for the same options the same page, as the last test left it.

    Tests choose the network they look at.
    """
    kept = {}

    def open_(**options):
        key = str(options)
        if key not in kept:
            kept[key] = open_shared_page(small_page, **options)
            kept[key].page.wait_for_selector(DRAWN)
        return kept[key]

    return open_


def choose(page, name):
    """Open a network by its name, and wait until its charts are drawn."""
    page.select_option("#network-choice", label=name)
    until(page, "[...document.querySelectorAll('#network .plot')].every((one) => one.data)")


def spectrum(page):
    """The heights of the singular values at the epoch shown."""
    return page.evaluate("document.querySelector('#history-charts .plot').data[1].y")


def set_slider(page, value):
    page.locator("#history-epoch").fill(str(value))


def test_it_opens_without_errors_or_requests(opened, small_page):
    watched = opened()
    assert watched.problems == []
    assert watched.outside() == [small_page]
    assert watched.page.locator("#panels .plot .main-svg").count() > 0
    choose(watched.page, "flip-flop, g = 0.8, sample 1")
    assert watched.page.locator("#network-charts .plot").count() == 6
    assert watched.problems == []


def test_untrusted_text_is_not_executed(opened):
    page = opened().page
    assert page.locator("#failures td", has_text="no luck </script><script>alert(1)</script>").count() == 1
    page.click("text=Sweep file")
    assert "<script>alert(1)</script>" in page.locator("#provenance pre").inner_text()
    assert page.evaluate("[...document.scripts].every((s) => !s.textContent.startsWith('alert'))")


def test_the_policy_blocks_injected_content(open_page, small_page):
    watched = open_page(small_page)
    watched.page.evaluate(
        """() => new Promise((done) => {
          window.stopped = [];
          document.addEventListener("securitypolicyviolation", (e) => window.stopped.push(e.violatedDirective));
          document.body.insertAdjacentHTML("beforeend",
            '<img src="http://127.0.0.1:9/x.png"><p id="aim" onclick="window.ran = 1">x</p>'
            + "<style>body{margin:9px}</style>");
          const script = document.createElement("script");
          script.textContent = "window.ran = 2";
          document.body.append(script);
          document.getElementById("aim").click();
          fetch("http://127.0.0.1:9/data").catch(() => {});
          setTimeout(done, 200);
        })"""
    )
    stopped = watched.page.evaluate("window.stopped")
    assert {"img-src", "connect-src", "script-src-attr", "script-src-elem", "style-src-elem"} <= set(stopped)
    assert watched.page.evaluate("window.ran") is None
    assert watched.page.evaluate("getComputedStyle(document.body).marginTop") == "0px"


def test_the_slider_moves_the_spectrum(opened):
    page = opened().page
    choose(page, "flip-flop, g = 0, sample 0")
    at_end = spectrum(page)
    set_slider(page, 0)
    at_start = spectrum(page)
    assert max(at_start) == 0 < max(at_end)
    assert page.locator("#history-position").inner_text() == "epoch 0 (record 1 of 12)"
    assert page.get_attribute("#history-epoch", "aria-valuetext") == "epoch 0 (record 1 of 12)"
    set_slider(page, 5)
    assert spectrum(page) not in (at_start, at_end)
    # The eigenvalues of a network that recorded them move, too.
    choose(page, "fixed_point, g = 0.8, sample 0")
    leading = "document.querySelectorAll('#history-charts .plot')[2].data[1].x[0]"
    before = page.evaluate(leading)
    set_slider(page, 0)
    assert page.evaluate(leading) != before


def test_play_runs_to_the_end_and_stops(open_page, small_page):
    page = open_page(small_page).page
    page.wait_for_selector(DRAWN)
    page.clock.install(time=0)
    page.clock.pause_at(3600)
    play = page.locator("#history-play")
    play.click()
    assert play.inner_text() == "Stop"
    page.clock.run_for(3 * 120 + 1)
    assert page.input_value("#history-epoch") == "3"
    play.click()
    assert play.inner_text() == "Play"
    page.clock.run_for(1000)
    assert page.input_value("#history-epoch") == "3"
    play.click()
    page.clock.run_for(8 * 120 + 1)
    assert page.input_value("#history-epoch") == "11"
    assert play.inner_text() == "Play"
    # Slower with reduced motion.
    page.emulate_media(reduced_motion="reduce")
    play.click()
    page.clock.run_for(699)
    assert page.input_value("#history-epoch") == "0"
    page.clock.run_for(2)
    assert page.input_value("#history-epoch") == "1"


def test_a_click_on_a_point_or_a_row_opens_its_network(opened):
    page = opened().page
    name, place = page.evaluate(
        """() => {
          const plot = document.querySelector("#panels .plot");
          plot.scrollIntoView();
          const trace = plot.data.findIndex((one) => one.customdata && one.y.length > 2);
          const point = plot.data[trace].x.length - 1;
          const box = plot.getBoundingClientRect();
          const [x, y] = [plot._fullLayout.xaxis, plot._fullLayout.yaxis];
          const { text, x: [...xs], y: [...ys] } = plot.data[trace];
          return [text[point], [box.left + x._offset + x.d2p(xs[point]), box.top + y._offset + y.d2p(ys[point])]];
        }"""
    )
    page.mouse.move(*place)
    page.mouse.click(*place)
    until(page, "document.activeElement.id === 'network-title'")
    chosen = page.locator("#network-choice option:checked").inner_text()
    assert chosen == name.replace(" (did not converge)", "")
    page.click("#networks-table button[data-network='2']")
    assert page.input_value("#network-choice") == "2"
    assert page.evaluate("document.activeElement.id") == "network-title"
    assert page.locator("#networks-table tr.chosen").count() == 1
    assert page.locator("#network-status").inner_text().startswith("Opened: ")


def test_the_keyboard_alone_is_enough(open_page, small_page):
    page = open_page(small_page).page
    page.wait_for_selector(DRAWN)
    reached, invisible = [], []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(120):
        what = page.evaluate(
            """() => {
              const e = document.activeElement;
              const style = getComputedStyle(e);
              const label = e.labels && e.labels.length && e.labels[0].textContent;
              const name = (e.getAttribute("aria-label") || label || e.textContent).trim();
              return { id: e.id, tag: e.tagName, name, ring: style.outlineStyle + " " + style.outlineWidth };
            }"""
        )
        if what["tag"] == "BODY":
            break
        reached.append(what)
        if not what["ring"].startswith(("solid 3", "auto")):
            invisible.append(what)
        page.keyboard.press("Tab")
    ids = {one["id"] for one in reached}
    controls = {"theme-toggle", "main-dimension", "curve-task", "network-choice", "network-next", "history-play"}
    assert controls | {"history-epoch"} <= ids
    assert sum(one["tag"] == "SUMMARY" for one in reached) >= 10
    assert invisible == []
    assert all(one["name"] for one in reached)
    page.focus("#history-epoch")
    before = page.input_value("#history-epoch")
    page.keyboard.press("ArrowLeft")
    assert int(page.input_value("#history-epoch")) == int(before) - 1
    page.focus("#network-choice")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#network-choice") == "1"
    page.focus("#history-play")
    page.keyboard.press("Enter")
    assert page.locator("#history-play").inner_text() == "Stop"
    page.focus("#networks-table button[data-network='3']")
    page.keyboard.press("Enter")
    assert page.input_value("#network-choice") == "3"


def test_every_chart_has_a_name_a_description_and_its_numbers(opened):
    page = opened().page
    choose(page, "flip-flop, g = 0.8, sample 0")
    charts = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => ({
          named: plot.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent),
          axes: [plot.layout.xaxis.title.text, plot.layout.yaxis.title.text],
        }))"""
    )
    assert len(charts) >= 10
    for one in charts:
        assert all(one["named"])
        assert len(one["named"][1]) > 10
        assert all(one["axes"])
    page.locator("#network-charts summary", has_text="Numbers").last.click()
    table = page.locator("#network-charts table").last
    table.wait_for()
    assert table.locator("caption").inner_text().startswith("Eigenvalues before and after learning")
    # 10 eigenvalues of two matrices.
    assert table.locator("tbody tr").count() == 20


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_window(opened, width):
    page = opened(width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.click("text=Job description")
    page.locator("summary", has_text="Numbers").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out(opened, dark):
    page = opened(dark=dark).page
    for _ in range(2):
        found = page.evaluate(CONTRAST)
        assert found["poor"] == []
        assert found["looked"] > 100
        page.click("#theme-toggle")
    assert page.locator("#theme-toggle").inner_text() == "Theme: system"


def test_the_button_turns_the_theme_and_the_charts_with_it(opened):
    page = opened().page
    color = "getComputedStyle(document.body).backgroundColor + document.querySelector('.plot').layout.font.color"
    before = page.evaluate(color)
    page.click("#theme-toggle")
    assert page.locator("#theme-toggle").inner_text() == "Theme: dark"
    assert page.evaluate(color) != before


def test_the_comparison_follows_its_controls(opened):
    watched = opened()
    page = watched.page
    page.select_option("#curve-task", label="fixed_point")
    names = "document.querySelector('#curves .plot').data.map((one) => one.name)"
    assert page.evaluate(names) == ["g = 0", "g = 0", "g = 0.8"]
    page.select_option("#main-dimension", "task")
    assert page.evaluate("document.activeElement.id") == "main-dimension"
    until(page, "document.querySelector('#panels .plot')?.layout?.xaxis.title.text === 'task'")
    page.select_option("#main-dimension", "gain")
    page.select_option("#curve-color-dimension", "task")
    assert page.locator("#curve-gain").count() == 1
    assert "fixed_point" in page.evaluate(names)
    assert watched.problems == []
