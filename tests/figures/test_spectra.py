"""The figure of the spectra: values, scale, labels."""

import numpy as np
from made_up_run import GAINS, TASKS, line_with, make_run
from matplotlib.patches import Circle

from rankscope.figures import spectra


def test_spectra_draws_21_panels():
    run = make_run((64,))
    panels = np.reshape(spectra(run).get_axes(), (3, 7))
    for task, (singular, *planes) in zip(TASKS, panels, strict=True):
        one = run.sel(task=task).isel(sample=0, hidden_size=0)
        values = one["singular_value"].where(one["singular_value"] > 0)[..., :40]
        for g in GAINS:
            for matrix in ("initial", "change", "trained"):
                assert line_with(singular, values.sel(gain=g, matrix=matrix))
        for ax, (matrix, g) in zip(planes, [(m, g) for m in ("change", "trained") for g in GAINS], strict=True):
            drawn = ax.get_lines()[-1]
            here = one.sel(gain=g, matrix=matrix)
            assert np.array_equal(drawn.get_xdata(), here["eigenvalue_real"])
            assert np.array_equal(drawn.get_ydata(), here["eigenvalue_imag"])
            assert [patch.radius for patch in ax.patches if isinstance(patch, Circle)] == [g]
            assert any(np.array_equal(line.get_xdata(), [1, 1]) for line in ax.get_lines())
            assert ax.get_aspect() == 1


def test_a_diverged_network_does_not_set_the_scale_and_what_lies_outside_is_counted():
    run = make_run()
    where = {"task": "mante", "gain": 0.9, "sample": 0}
    run["status"].loc[where] = "diverged"
    run["eigenvalue_real"].loc[{**where, "matrix": "trained", "eigenvalue": [0, 1]}] = 1e6
    run["eigenvalue_real"].loc[{**where, "matrix": "change", "eigenvalue": 0}] = np.nan
    panels = spectra(run).get_axes()
    assert panels[7 + 5].get_xlim()[1] < 3
    assert "2 outside" in [text.get_text() for text in panels[7 + 5].texts]
    assert not any("outside" in text.get_text() for text in panels[7 + 2].texts)


def test_titles_and_labels():
    panels = spectra(make_run()).get_axes()
    assert [panels[i].get_title() for i in (0, 7, 14)] == ["flip-flop", "Mante", "Romo"]
    assert panels[1].get_title() == r"$\Delta W$, $g$ = 0"
    assert panels[6].get_title() == r"$W$, $g$ = 1.8"
    assert panels[1].get_ylabel() == r"Im $\lambda$"
    assert panels[4].get_xlabel() == r"Re $\lambda$"
