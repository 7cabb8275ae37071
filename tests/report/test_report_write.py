"""The page as a file, from Python and from the command line, and what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
from made_up_linear_run import dataset_for
from made_up_run import make_run
from made_up_sentiment_run import make_sentiment_run
from report_cases import HOSTILE, small_jobs, store

import rankscope as rs
from rankscope.cli import main
from rankscope.report import write
from rankscope.report.packing import unpack
from rankscope.report.write import html
from rankscope.sweep import Sweep

RUNS = {
    "tasks": make_run,
    "gain": make_run,
    "spectra": make_run,
    "size": lambda: make_run((8, 16)),
    "sentiment": make_sentiment_run,
    **{
        name: lambda name=name: dataset_for(name)
        for name in ("linear", "linear-gain", "linear-log", "divergence", "cosine")
    },
}


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def data_of(page):
    """What the scripts of the page are given."""
    return json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page).group(1))


def without_scripts(page):
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("name", RUNS)
def test_every_experiment_has_a_page(name):
    run = RUNS[name]()
    page = html(run, name)
    assert len(data_of(page)["networks"]) == run["status"].size
    text = without_scripts(page)
    assert f"<h1>Experiment {name}</h1>" in text
    assert "Claims of Schuessler" in text
    assert len(page) < 15e6


def test_the_command_writes_the_page_and_says_so(capsys, small_run, tmp_path):
    out = tmp_path / "page.html"
    status, said, err = call(capsys, "report", small_run, "--out", out, "--json")
    assert (status, err) == (0, "")
    told = json.loads(said)
    assert told["path"] == str(out)
    assert told["bytes"] == out.stat().st_size
    assert told["seconds"] > 0
    assert list(tmp_path.iterdir()) == [out]
    status, said, _ = call(capsys, "report", small_run, "--out", out)
    assert (status, said.strip()) == (0, str(out))


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("nowhere/page.html", "out must be in a folder that exists"),
        ("page.pdf", "out must be an .html file"),
        ("page", "out must be an .html file"),
        ("folder.html", "out must be a file to write"),
    ],
)
def test_where_a_page_cannot_be(capsys, small_run, tmp_path, out, words):
    (tmp_path / "folder.html").mkdir()
    status, said, err = call(capsys, "report", small_run, "--out", tmp_path / out)
    assert (status, said) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_run(capsys, tmp_path):
    for folder in (tmp_path / "nothing", tmp_path):
        status, _, err = call(capsys, "report", folder, "--out", tmp_path / "page.html")
        assert (status, err.count("\n")) == (2, 1)
        assert "run.json" in err
    with pytest.raises(rs.InputError, match="experiment must be one of"):
        write(make_run(), tmp_path / "page.html", experiment="gian")
    assert list(tmp_path.iterdir()) == []


def test_texts_of_others_cannot_leave_their_place(small_run, tmp_path):
    page = write(small_run, tmp_path / "page.html").read_text()
    assert HOSTILE not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in without_scripts(page)
    run = (
        make_run()
        .assign_coords(task=[HOSTILE, "mante", '"><img src=x onerror=alert(1)>'])
        .assign_attrs(platform=HOSTILE)
    )
    page = html(run)
    assert HOSTILE not in page
    assert "<img" not in page
    assert data_of(page)["networks"][0]["labels"]["task"] == HOSTILE


def test_a_run_that_goes_on_says_so(tmp_path):
    jobs = small_jobs()[:2]
    store(tmp_path / "run", jobs, {"experiment": "gain", "preset": "quick"}, skip=1)
    page = without_scripts(html(tmp_path / "run"))
    assert "This run is not complete" in page
    assert re.search(r"1 of 2 networks are finished, 0 running,\s+1 waiting", page)
    assert "rankscope run gain --preset quick --out run" in page
    assert "of all networks</a>" not in page  # nothing to compare
    assert page.count("not in this run") >= 10


def test_a_complete_run_does_not(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    for failed in (tmp_path / "run" / "failed").iterdir():
        failed.unlink()
    assert "This run is not complete" in html(tmp_path / "run")
    assert "This run is not complete" not in html(small_run)


def test_a_sweep_of_a_users_own(tmp_path):
    text = """
task: flipflop
hidden_size: 8
epochs: 4
batch_size: 2
grid:
  nonlinearity: [tanh, identity]
  learning_rate: [0.001, 0.01]
  orthogonal: [true, false]
"""
    (tmp_path / "sweep.yaml").write_text(text)
    jobs = Sweep.from_yaml(tmp_path / "sweep.yaml").jobs()
    store(tmp_path / "run", jobs[:7], {"sweep": text})
    content = data_of(html(tmp_path / "run"))
    assert {one["name"] for one in content["dimensions"]} == {"nonlinearity", "learning_rate", "orthogonal"}
    assert content["main"] == "learning_rate"
    assert len(content["networks"]) == 7
    assert {one["labels"]["orthogonal"] for one in content["networks"]} == {True, False}
    for network in content["networks"]:
        assert network["labels"]["nonlinearity"] in ("tanh", "identity")
        assert np.isfinite(unpack(network["loss"])).all()
