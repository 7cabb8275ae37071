"""Several checkpoints of a training: directions that were planted one after the other grow one after the other."""

import numpy as np
import pytest
import torch
from checkpoint_cases import low_rank
from safetensors.torch import save_file

import rankscope as rs

STEPS = [0, 100, 200, 300, 400]
GROWTH = np.array([[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0.7, 0.1], [1, 1, 1]])
"""Fraction of each planted direction at each checkpoint."""


def planted(size=(40, 30), strengths=(4.0, 3.0, 2.0), noise=0.0, layers=1):
    """Return state dicts whose change has three directions that grow as in `GROWTH`, beside noise that grows."""
    generator = torch.manual_seed(0)
    states = [{} for _ in STEPS]
    for layer in range(layers):
        U, V = (torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64)).Q for n in size)
        W0, rest = torch.randn(2, *size, generator=generator, dtype=torch.float64)
        for state, fractions in zip(states, torch.tensor(GROWTH), strict=True):
            s = fractions * torch.tensor(strengths, dtype=torch.float64)
            state[f"layers.{layer}.weight"] = W0 + (U * s) @ V.t() + noise * fractions.mean() * rest
    return states


def test_directions_grow_as_planted():
    states = planted()
    growth = rs.compare_along(states, labels=[f"checkpoint-{step}" for step in STEPS])
    assert [stage.step for stage in growth.stages] == STEPS[1:]
    for stage, fractions in zip(growth.stages, GROWTH[1:], strict=True):
        assert stage.strengths == pytest.approx(fractions * [4, 3, 2], abs=1e-9)
        assert stage.norm == pytest.approx(np.linalg.norm(fractions * [4, 3, 2]))
        there = fractions > 0
        assert stage.cosines == pytest.approx(there.astype(float), abs=1e-9)
        assert np.array(stage.places)[there].tolist() == list(range(1, there.sum() + 1))
        for overlap in (stage.left_overlap, stage.right_overlap):
            assert overlap == pytest.approx(there.sum() / 3)
    assert growth.stages[-1].strengths == pytest.approx(growth.stages[-1].measures.singular_values[:3])


def test_noise_does_not_hide_the_directions_and_has_the_overlap_of_chance():
    states = planted((200, 150), noise=0.01)
    growth = rs.compare_along(states)
    assert [len(stage.strengths) for stage in growth.stages] == [3] * 4  # those that stand out of the last change
    np.testing.assert_allclose([stage.strengths for stage in growth.stages], GROWTH[1:] * [4, 3, 2], atol=0.05)
    assert growth.stages[0].left_overlap == pytest.approx(1 / 3 + 2 / 3 * 3 / 200, abs=0.02)
    # Of a random change, whose leading directions change from one checkpoint to the next.
    noise = torch.randn(4, 200, 150, generator=torch.manual_seed(1)).cumsum(0)
    random = rs.compare_along([{"w": torch.zeros(200, 150)}, *({"w": one} for one in noise)], directions=5)
    assert random.stages[0].left_overlap < 0.4 < random.stages[-1].left_overlap == pytest.approx(1)


def test_files_name_their_steps_and_adapters_follow_their_base(tmp_path):
    states = planted()
    paths = []
    for step, state in zip(STEPS, states, strict=True):
        (tmp_path / f"checkpoint-{step}").mkdir()
        paths.append(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        save_file({name: value.contiguous() for name, value in state.items()}, paths[-1])
    growth = rs.compare_along([str(path) for path in paths])
    assert growth.checkpoints == tuple(f"checkpoint-{step}" for step in STEPS)
    assert growth.write_csv(tmp_path / "t.csv").read_text().count("\n") == len(STEPS)
    folders = [path.parent for path in paths]
    assert rs.compare_along(folders).checkpoints == growth.checkpoints
    adapters = [rs.low_rank_factors(states[0], state, 3).save(tmp_path / f"epoch={i}") for i, state in
                enumerate(states[1:])]  # fmt: skip
    followed = rs.compare_along([states[0], *adapters])
    assert followed.checkpoints == ("checkpoint 0", "epoch=0", "epoch=1", "epoch=2", "epoch=3")
    for one, other in zip(growth.stages, followed.stages, strict=True):
        assert other.strengths == pytest.approx(one.strengths, abs=1e-5)
        assert other.left_overlap == pytest.approx(one.left_overlap, abs=1e-5)


def test_what_cannot_be_followed_is_skipped_with_the_checkpoint():
    states = planted()
    for state in states:
        state |= {"same.weight": torch.ones(3, 3), "broken.weight": low_rank(3, 3, 1), "late.weight": torch.ones(3, 3)}
    states[2]["broken.weight"] = torch.full((3, 3), torch.nan)
    states[-1]["broken.weight"], states[-1]["late.weight"] = 2 * low_rank(3, 3, 1), torch.zeros(3, 3)
    growth = rs.compare_along(states)
    skipped = {one.name: one.reason for one in growth.skipped}
    assert skipped.keys() == {"same.weight", "broken.weight"}
    assert "there are no directions to follow" in skipped["same.weight"]
    assert skipped["broken.weight"].startswith("checkpoint 2: ")
    late = [stage for stage in growth.stages if stage.name == "late.weight"]
    assert [stage.norm for stage in late] == [0, 0, 0, 3]
    assert late[0].measures is None
    assert late[0].strengths == (0.0,)


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        (2, {}, "checkpoints must be three or more, got 2"),
        (3, {"labels": ["a", "b"]}, "labels must be 3 different names"),
        (3, {"labels": ["a", "b", "b"]}, "labels must be 3 different names"),
        (3, {"directions": 0}, "directions must be a whole number >= 1"),
        (3, {"layers": ["x"]}, "layers must be one of 'layers.0.weight'"),
    ],
)
def test_bad_input_is_refused(arguments, options, named):
    with pytest.raises(rs.InputError, match=named):
        rs.compare_along(planted()[:arguments], **options)
