"""The linear theory from the command line: its table, its JSON, its figure, networks beside it, one-line errors."""

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
