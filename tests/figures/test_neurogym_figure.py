"""The NeuroGym figure: which networks are drawn where."""

import numpy as np
from made_up_neurogym_run import make_neurogym_run

from rankscope.figures import neurogym


def drawn_in(ax, filled):
    lines = [line for line in ax.get_lines() if line.get_linestyle() == "None"]
    wanted = [line for line in lines if (line.get_markerfacecolor() != "white") == filled]
    return np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in wanted])


def test_every_network_is_drawn_and_the_learned_are_filled():
    run = make_neurogym_run()
    panels = neurogym(run).axes
    score = np.where(run["score"] < 0, -0.03, run["score"])
    learned = (run["score"] > (1 + run["chance"]) / 2).values
    known = np.isfinite(score)
    np.testing.assert_allclose(np.sort(drawn_in(panels[0], True)), np.sort(score[learned]))
    np.testing.assert_allclose(np.sort(drawn_in(panels[0], False)), np.sort(score[known & ~learned]))
    for ax, name in zip(panels[1:], ("fall_epoch", "score_rank", "change_norm"), strict=True):
        np.testing.assert_allclose(np.sort(drawn_in(ax, True)), np.sort(run[name].values[learned]))
        assert drawn_in(ax, False).size == 0
    rows = [text.get_text() for text in panels[0].get_yticklabels()]
    assert rows[-1] == "GoNogo"
    assert rows[0] == "PerceptualDecisionMakingDelayResponse"
    assert "not a task" in [text.get_text() for text in panels[0].texts]
