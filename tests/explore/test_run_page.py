"""The page of a run in a browser, while a sweep fills the folder in another process."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from explore_cases import jobs, served, wait_for

from forking import Program
from rankscope.sweep import Job, RunFolder, run

POINTS = """(name) => {
  const plot = document.getElementById("plot-" + name);
  return plot.data ? plot.data.filter((trace) => trace.customdata).flatMap((trace) => trace.y).length : 0;
}"""


def train(folder):
    """Run the jobs on a thread; starting processes takes seconds."""
    with ThreadPoolExecutor(1) as executor:
        run(jobs(), folder, executor=executor)


def rows(page):
    return page.evaluate("() => [...document.querySelectorAll('#rows tr')].map((row) => row.textContent)")


def test_a_sweep_in_another_process_grows_the_page(open_page, tmp_path):
    folder = tmp_path / "run"
    RunFolder(folder).prepare(jobs(), {"experiment": "mine"})
    with served(folder) as address:
        watched = open_page(address)
        page = watched.page
        wait_for(lambda: page.inner_text("#counts") == "0 of 4 networks finished, 4 waiting.")
        assert page.inner_text("h1") == "Run: mine"
        page.evaluate("() => { window.still = true; }")
        program = Program(tmp_path, train, folder)
        seen = set()

        def finished():
            counts = page.inner_text("#counts")  # read once: between two readings it may grow
            seen.add(int(counts.split()[0]))
            return counts == "4 of 4 networks finished."

        wait_for(finished, 120)
        program.communicate()
        assert program.returncode == 0
        wait_for(lambda: page.evaluate(POINTS, "change_norm") == 4)
        assert page.evaluate(POINTS, "loss") == 4 * 12
        assert page.evaluate("() => window.still")  # it was never loaded again
        assert {0, 4} <= seen  # it has grown before our eyes
        assert len(rows(page)) == 4
        assert all("finished" in row for row in rows(page))
        assert watched.problems == []
        assert watched.outside(address.removesuffix("run")) == []


@pytest.fixture
def run_page(open_page, finished_run):
    hostile = "</script><script>window.stolen = true</script><img src=x onerror='window.stolen = true'>"
    lost = Job(task="flipflop", labels={"note": hostile})
    RunFolder(finished_run).prepare([lost])
    RunFolder(finished_run).fail(lost.digest, "ValueError", hostile)
    with served(finished_run) as address:
        watched = open_page(address, width=390)
        wait_for(lambda: len(rows(watched.page)) == 5)
        yield watched, hostile


def test_what_failed_is_listed_and_what_it_says_is_text(run_page):
    watched, hostile = run_page
    assert watched.page.inner_text("#counts") == "4 of 5 networks finished, 1 failed."
    assert f"failed: ValueError: {hostile}" in rows(watched.page)[0]
    assert watched.page.evaluate("() => window.stolen") is None
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") == 390
    assert watched.problems == []


def test_one_network_by_keyboard(run_page):
    page = run_page[0].page
    page.focus("#rows button")
    digest = page.inner_text("#rows button")
    page.keyboard.press("Enter")
    wait_for(lambda: page.evaluate("() => document.querySelectorAll('#details .main-svg').length") >= 3)
    assert page.inner_text("#one-heading") == f"One network: {digest}"
    assert page.evaluate("() => document.activeElement.id") == "one-heading"
    page.select_option("#along", "sample")
    wait_for(
        lambda: page.evaluate("() => document.getElementById('plot-change_norm').layout.xaxis.title.text") == "sample"
    )
    assert run_page[0].problems == []
