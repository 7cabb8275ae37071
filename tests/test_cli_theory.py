"""The theories from the command line: table, JSON, figure, networks for comparison, one-line errors."""

import json

import pytest

import rankscope as rs
from commands import call

pytestmark = pytest.mark.usefixtures("forked_workers")


def test_the_table_has_both_theories_at_the_end(capsys):
    status, out, _ = call(capsys, "theory", "--gain", 0.6, "--target", 2)
    assert status == 0
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in out.splitlines() if line.startswith("│")}
    # The exact solution, and the paper's formulas, at the end of learning.
    assert [x.strip() for x in rows["|dW|"]] == ["0.4293", "0.813"]
    assert [x.strip() for x in rows["loss after shuffle / initial loss"]] == ["0.7442", "0.3486"]
    assert rows["outlier eigenvalue of W"][0].strip() == "0.8876"


def test_json_holds_the_curves(capsys):
    status, out, _ = call(capsys, "theory", "--gain", 0.6, "--target", 0.5, "--until", 1, "--json")
    assert status == 0
    values = json.loads(out)
    assert (values["tau"][0], values["tau"][-1]) == (0, 1)
    norm = values["theories"]["exact"]["change_norm"]
    assert len(norm) == len(values["tau"])
    assert norm[-1] == pytest.approx(0.2552, abs=5e-5)
    # there is no outlier before it leaves the bulk
    assert values["theories"]["exact"]["outlier"][0] is None
    assert set(values["theories"]) == {"exact", "third order"}


def test_networks_beside_it(capsys, tmp_path):
    picture = tmp_path / "theory.png"
    options = ("--gain", 0.3, "--target", 1, "--compare", 2, "--hidden-size", 48, "--workers", 1, "--out", picture)
    status, out, _ = call(capsys, "theory", *options, "--json")
    assert status == 0
    values = json.loads(out)
    assert values["files"] == [str(picture)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    networks = values["networks"]
    assert networks["hidden_size"] == 48
    assert [len(sample["loss"]) for sample in networks["samples"]] == [50, 50]
    # small networks scatter, but all of them learn, and by about the same change
    exact = values["theories"]["exact"]["change_norm"][-1]
    for sample in networks["samples"]:
        assert sample["loss"][-1] < 0.01 * sample["loss"][0]
        assert sample["change_norm"][-1] == pytest.approx(exact, rel=0.5)
    assert networks["tau"][-1] == pytest.approx(values["tau"][-1], rel=0.01)


OWN_TASK = """
import rankscope as rs

class Own:
    def sample(self, batch_size, rng):
        return rs.tasks.Romo(outputs=1).sample(batch_size, rng)
"""


def test_a_task_is_learned_at_infinite_width(capsys, tmp_path):
    picture = tmp_path / "limit.png"
    options = ("--task", "flipflop", "--epochs", 8, "--nodes", 16, "--repetitions", 2)
    status, out, _ = call(capsys, "theory", *options, "--compare", 2, "--hidden-size", 24, "--out", picture, "--json")
    assert status == 0
    values = json.loads(out)
    assert values["epoch"] == list(range(8))
    assert values["files"] == [str(picture)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    limit, networks = values["estimates"], values["networks"]["samples"]
    assert set(limit) == {"value", "scrambling", "nodes"}
    norm = limit["value"]["change_norm"][-1]
    assert limit["scrambling"]["change_norm"][-1] < 0.2 * norm
    assert [len(network["loss"]) for network in networks] == [8, 8]
    assert networks[0]["change_norm"][-1] == pytest.approx(norm, rel=0.3)


def test_an_own_task_is_learned_at_infinite_width(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN_TASK)
    status, out, _ = call(capsys, "theory", "--task", "own.py:Own", "--epochs", 3, "--nodes", 16, "--repetitions", 2)
    assert status == 0
    assert out.startswith("Own at g = 0 and infinite width, after 3 epochs, from 16 nodes")
    assert "|dW|" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "flipflop", "--gain", 0.6), "--gain must be given for a linear network, without --task only"),
        (("--nodes", 64), "--nodes must be given for --task only"),
        (("--task", "flip"), "task must be one of"),
        (("--task", "flipflop", "--nodes", 3), "nodes must be at least 16"),
        (("--task", "flipflop", "--repetitions", 1), "repetitions must be"),
        (("--gain", 1), "gain must be below 1"),
        (("--gain", -0.1), "gain must be"),
        (("--target", 0), "target must not be 0"),
        (("--target", "nan"), "target must be"),
        (("--until", 0), "until must be"),
        (("--compare", -1), "compare must be"),
        (("--compare", 1, "--until", 1e6), "until must be shorter"),
        (("--compare", 1, "--hidden-size", 0), "hidden_size must be"),
        (("--compare", 10**6, "--out", "theory.gif"), "format must be"),
    ],
)
def test_bad_input_is_one_line(capsys, options, message):
    status, out, err = call(capsys, "theory", *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"rankscope: {message}")
    assert err.count("\n") == 1


def test_the_theories_are_public():
    assert rs.theory.InfiniteWidth(0.6, 2).convergence_time() < rs.theory.ThirdOrder(0.6, 2).convergence_time()
