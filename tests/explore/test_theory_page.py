"""The theory page in a browser: sliders, keyboard, phase diagram, trained networks."""

import pytest
from explore_cases import served, wait_for

import rankscope as rs
from rankscope.explore import networks as networks_module

CURVE = """(name) => {
  const trace = document.getElementById("plot-" + name).data.find((trace) => trace.name === "exact");
  return trace.y[trace.y.length - 1];
}"""
POINTS = """() => {
  const trace = document.getElementById("plot-loss").data.find((trace) => trace.name === "trained");
  return trace ? trace.y.filter((y) => y !== null).length : 0;
}"""
MOVE = """([id, value]) => {
  const input = document.getElementById(id);
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}"""


@pytest.fixture(scope="module")
def address():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks_module, "NETWORKS", 1)
        with served() as address:
            yield address


@pytest.fixture
def watched(open_page, address):
    watched = open_page(address)
    wait_for(lambda: watched.page.evaluate("() => document.querySelectorAll('#values tr').length") > 5)
    return watched


def end_of(watched, name="change_norm"):
    return watched.page.evaluate(CURVE, name)


def norm(gain, target):
    return float(rs.theory.InfiniteWidth(gain, target).solve([float("inf")])["change_norm"][0])


def place(watched):
    return tuple(float(watched.page.input_value(f"#{name}")) for name in ("gain", "target"))


def test_a_slider_moves_the_curves(watched):
    page = watched.page
    assert place(watched) == (0.6, 2.0)
    assert end_of(watched) == pytest.approx(norm(0.6, 2.0), rel=1e-3)
    page.evaluate(MOVE, ["gain", 0.3])
    wait_for(lambda: end_of(watched) == pytest.approx(norm(0.3, 2.0), rel=1e-3))
    page.evaluate(MOVE, ["target", 1])
    wait_for(lambda: end_of(watched) == pytest.approx(norm(0.3, 1.0), rel=1e-3))
    shown = page.inner_text("#values tr:nth-child(3) td")
    assert float(shown) == pytest.approx(norm(0.3, 1.0), rel=1e-3)
    wait_for(lambda: f"norm {norm(0.3, 1.0):.3g}" in page.inner_text("#summary"))
    # while it is dragged, the last place counts
    for gain in (0.35, 0.4, 0.45, 0.5):
        page.evaluate(MOVE, ["gain", gain])
    wait_for(lambda: end_of(watched) == pytest.approx(norm(0.5, 1.0), rel=1e-3))
    assert watched.problems == []
    assert watched.outside(page.url) == []
    assert len([request for request in watched.requests if "gain=0.35&" in request or "gain=0.4&" in request]) <= 2


def test_the_keyboard_alone_is_enough(watched):
    page = watched.page
    page.focus("#theme-toggle")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id"))
    assert reached[:4] == ["gain", "gain-number", "target", "target-number"]
    assert "units" in reached
    page.focus("#gain")
    page.keyboard.press("ArrowRight")
    wait_for(lambda: place(watched) == (0.61, 2.0) and end_of(watched) == pytest.approx(norm(0.61, 2.0), rel=1e-3))
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.focus("#target-number")
    page.keyboard.press("Control+a")
    page.keyboard.type("1.5")
    page.keyboard.press("ArrowUp")
    wait_for(lambda: place(watched) == (0.61, 1.55) and end_of(watched) == pytest.approx(norm(0.61, 1.55), rel=1e-3))
    page.keyboard.press("Control+a")
    page.keyboard.type("99")  # as far as it goes
    page.keyboard.press("Tab")
    assert page.input_value("#target-number") == "8"
    page.focus("#log_rate")
    page.keyboard.press("End")
    wait_for(lambda: "diverges." in page.inner_text("#phase"))
    assert watched.problems == []


def test_a_place_in_the_phase_diagram_moves_the_sliders(watched):
    page = watched.page
    plot = page.locator("#plot-phases .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    # a quarter of the way along the gains, half-way up the targets, which are drawn logarithmically
    page.mouse.move(box["x"] + box["width"] / 4 + 3, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    wait_for(lambda: place(watched)[0] == pytest.approx(0.95 / 4, abs=0.02))
    gain, target = float(page.input_value("#gain-number")), float(page.input_value("#target-number"))
    assert target == pytest.approx((0.1 * 8) ** 0.5, rel=0.05)
    wait_for(lambda: end_of(watched) == pytest.approx(norm(gain, target), rel=2e-3))
    ring = "() => ['x', 'y'].map((axis) => document.getElementById('plot-phases').data[1][axis][0])"
    wait_for(lambda: page.evaluate(ring) == [gain, target])
    wait_for(lambda: f"At g = {gain:g}" in page.inner_text("#phase"))
    assert watched.problems == []


def test_networks_are_drawn_and_removed(watched):
    page = watched.page
    page.select_option("#units", "64")
    wait_for(lambda: page.evaluate(POINTS) > 20)
    wait_for(lambda: page.inner_text("#training") == "1 networks of 64 units trained.")
    page.evaluate(MOVE, ["gain", 0.2])
    wait_for(lambda: page.evaluate(POINTS) == 0)
    assert watched.problems == []


def test_an_error_is_shown(watched):
    watched.page.route(
        "**/api/curves*", lambda route: route.fulfill(status=422, json={"error": "gain must be another"})
    )
    watched.page.evaluate(MOVE, ["gain", 0.11])
    wait_for(lambda: watched.page.inner_text("#problem") == "No curves: gain must be another")
    watched.page.unroute("**/api/curves*")
    watched.page.evaluate(MOVE, ["gain", 0.12])
    wait_for(lambda: not watched.page.is_visible("#problem"))


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(open_page, address, dark):
    watched = open_page(address, width=390, height=800, dark=dark)
    wait_for(lambda: watched.page.evaluate("() => document.querySelectorAll('#values tr').length") > 5)
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") == 390
    watched.page.evaluate("() => window.scrollTo(0, 500)")
    box = watched.page.locator("#gain").bounding_box()
    assert 0 <= box["y"] < 120  # the sliders are sticky
    assert box["width"] > 100
    unnamed = watched.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")]
          .filter((input) => !input.labels?.length && !input.ariaLabel && !input.textContent).length"""
    )
    assert unnamed == 0
    assert watched.problems == []
