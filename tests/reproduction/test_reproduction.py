"""`rankscope reproduce` on experiments of tiny networks: plan, interruption, shared results, page; and docs/results."""

import importlib.util
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import rankscope as rs
from rankscope.cli import main
from rankscope.experiments import EXPERIMENTS, Experiment
from rankscope.experiments.claims import Claim, Finding
from rankscope.figures import FIGURES
from rankscope.reproduction import plan
from rankscope.sweep.calls import read_calls

pytest_plugins = ["browsing"]
ROOT = Path(__file__).parents[2]


def jobs(gains):
    return [
        rs.Job(
            task="flipflop",
            network={"hidden_size": 8, "gain": gain},
            training={"epochs": 3},
            measurements=["norms"],
            labels={"sample": 0},
        )
        for gain in gains
    ]


def experiment(name, made, figure="gain"):
    claims = (
        Claim(f"{name} one", f"|dW| of {name} <b>", "paper & co", lambda data: Finding("a < b", True)),
        Claim(f"{name} two", f"another of {name}", "1", lambda data: Finding("2", False)),
    )
    return Experiment(name, f"Description of {name}", {"quick": made, "paper": made}, claims, figure)


@pytest.fixture
def tiny(monkeypatch):
    made = {
        "first": experiment("first", lambda: jobs([0.0, 0.9])),
        "same": experiment("same", lambda: jobs([0.0, 0.9])),
        "second": experiment("second", lambda: jobs([0.9, 1.8])),
        "absent": experiment(
            "absent", lambda: [rs.Job(task={"name": "sentiment", "data": "treebank"}, network="lstm")]
        ),
    }
    monkeypatch.setenv("RANKSCOPE_CACHE", "/nowhere")
    for name in set(EXPERIMENTS) - set(made):
        monkeypatch.delitem(EXPERIMENTS, name)
    for name, one in made.items():
        monkeypatch.setitem(EXPERIMENTS, name, one)
    monkeypatch.setattr(plan, "NAMES", tuple(made))
    monkeypatch.setitem(FIGURES, "gain", lambda data: Figure(figsize=(4, 3)))


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *map(str, arguments)])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_whole_of_it(capsys, tmp_path, tiny, forked_workers, open_page):
    out = tmp_path / "runs"
    status, text, _ = call(capsys, "--quick", "--out", out, "--dry-run", "--json")
    assert status == 0
    runs = {run["run"]: run for run in json.loads(text)["runs"]}
    assert {name: (run["networks"], run["left"]) for name, run in runs.items()} == {
        "first": (2, 2),
        "second": (2, 1),
        "absent": (1, 0),
    }
    assert runs["first"]["experiments"] == ["first", "same"]
    assert "rankscope data sentiment" in runs["absent"]["missing"]
    assert not out.exists()

    status, text, err = call(capsys, "--quick", "--out", out, "--json", "--workers", 1)
    assert status == 0
    found = json.loads(text)
    assert found["verdicts"] == {"holds": 3, "fails": 3, "not in this run": 2}
    assert found["facts"]["second"]["networks"] == 2
    assert "second: 1 of 2 networks to train" in err
    first, second = ({path.name for path in (out / name / "jobs").iterdir()} for name in ("first", "second"))
    assert len(first & second) == 1
    page = (out / "reproduction.html").read_bytes()

    status, text, err = call(capsys, "--quick", "--out", out, "--workers", 1)
    assert status == 0
    assert "networks to train" not in err
    assert len(read_calls(out / "first")) == 1
    assert (out / "reproduction.html").read_bytes() == page

    watched = open_page(f"file://{out / 'reproduction.html'}")
    assert watched.problems == []
    assert watched.outside("file://") == []
    glance = watched.page.locator("#glance tbody tr").all_inner_texts()
    assert glance[0] == "first: Description of first 1 of 2 hold, 1 fail"
    assert [row.split("\t")[:2] for row in glance[1:3]] == [
        ["holds", "‖dW‖ of first <b>"],
        ["fails", "another of first"],
    ]
    assert watched.page.locator("img").count() == 3
    assert watched.page.evaluate("[...document.images].every(image => image.naturalWidth > 300)")

    status, _, err = call(capsys, "--out", out)
    assert (status, "must not hold the preset 'quick'" in err) == (2, True)
    status, _, err = call(capsys, "--quick", "--out", out, "--only", "frist")
    assert (status, "'frist'" in err) == (2, True)


def test_the_pages_of_docs_are_those_of_their_files():
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    pages = [name for name in results.NAMES if (results.PAGES / f"{name}.check.json").is_file()]
    assert len(pages) >= 10
    for name in pages:
        assert (results.PAGES / f"{name}.md").read_text(encoding="utf-8") == results.page(name), name
    assert (results.PAGES / "index.md").read_text(encoding="utf-8") == results.index()


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_experiments_with_the_same_networks_measure_what_both_need(preset, tmp_path):
    # A part has the networks of several experiments: of `spectra` and `alignment` in the quick preset.
    for part in plan.make_plan(tmp_path, preset, 2, ["spectra", "alignment"]):
        measured = {job.digest: job.measurements for job in part.jobs}
        for name in part.experiments:
            for job in EXPERIMENTS[name].jobs(preset):
                assert set(job.measurements) <= set(measured[job.digest])
