"""The shared script of charts in a browser: plotly under the policy, colors, themes."""

import pytest

from rankscope.pages import Inline, page, plotly_javascript, shared
from rankscope.plot.style import COLORS

DRAW = """
rankscope.draw(document.getElementById("p"), () => ({
  traces: [
    { x: [1, 2], y: [1, 1000], name: rankscope.text("<b>a</b> & b") },
    { x: [1, 2], y: [2, 3], name: "x<sub>1</sub>" },
  ],
  axes: { x: { title: "x" }, y: { title: "y", log: true }, showlegend: true },
}));
"""


@pytest.fixture(scope="module")
def opened(open_shared_page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    scripts = [Inline(shared("charts.js")), Inline(plotly_javascript()), Inline(DRAW)]
    path.write_text(
        page("Test", '<div id="p" class="plot"></div>', scripts=scripts, styles=[Inline(shared("style.css"))])
    )
    return open_shared_page(path.as_uri())


def test_plotly_works_without_errors(opened):
    shown = opened.page.locator("#p .legendtext").all_text_contents()
    # plotly puts invisible spaces beside a subscript.
    assert [text.replace("\u200b", "") for text in shown] == ["<b>a</b> & b", "x1"]
    opened.page.hover("#p")
    assert opened.problems == []
    assert len(opened.requests) == 1


def test_the_colors_are_those_of_the_figures(opened):
    styles = opened.page.evaluate("[0, 1, 2, 3, 4, 5, 6].map((index) => rankscope.style(index))")
    assert [one["color"].upper() for one in styles] == list(COLORS)
    assert len({one["symbol"] for one in styles}) == 7


def test_ordered_colors_go_from_end_to_end(opened):
    first, middle, last = opened.page.evaluate("[0, 0.5, 1].map(rankscope.scale)")
    assert (first, last) == ("rgb(68,1,84)", "rgb(168,199,42)")
    assert middle not in (first, last)


def test_the_choice_of_theme_is_kept(opened):
    page = opened.page
    page.click("#theme-toggle")
    assert page.evaluate("rankscope.theme().dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.getElementById('p').layout.font.color") == "#e8eaed"
    page.click("#theme-toggle")
    assert page.evaluate("[rankscope.theme().dark, 'theme' in document.documentElement.dataset]") == [False, False]


def test_removed_charts_are_not_redrawn(opened):
    page = opened.page
    page.evaluate("rankscope.forget(document.getElementById('p')), document.getElementById('p').remove()")
    page.click("#theme-toggle")
    page.click("#theme-toggle")
    assert opened.problems == []
