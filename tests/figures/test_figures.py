"""Figures show the numbers they are given, and change no setting of anybody's matplotlib."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import rankscope as rs
from rankscope.experiments import Cell, run
from rankscope.figures import learning, save_figure


@pytest.fixture(scope="module")
def measured():
    cells = [Cell(rs.tasks.FlipFlop(), gain, hidden_size=16, epochs=10) for gain in (0.0, 0.9)]
    return xr.concat([run(cell).measurements for cell in cells], dim="gain", combine_attrs="drop_conflicts")


def line_with(axes, values):
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]
    return any(y.shape == values.shape and np.allclose(y, values, equal_nan=True) for y in drawn)


def test_the_column_draws_what_was_measured(measured):
    figure = learning(measured, "title")
    axes = figure.get_axes()
    assert len(axes) == 5  # two channels of the trial, and three panels
    for index in range(2):
        run_of_gain = measured.isel(gain=index)
        for channel in range(2):
            assert line_with(axes[channel], run_of_gain["example_output"].isel(output_channel=channel).values)
        assert line_with(axes[2], (run_of_gain["loss"] / run_of_gain["initial_loss"]).values)
        singular = run_of_gain["singular_value"].sel(matrix="change").values[:25]
        assert line_with(axes[3], singular)
        truncation = run_of_gain["truncation_loss"].values
        assert line_with(axes[4], truncation / truncation[0])
    assert all(ax.get_ylabel() for ax in axes)


def test_nothing_global_is_changed(measured, tmp_path):
    before = dict(mpl.rcParams)
    paths = save_figure(learning(measured), tmp_path / "figure.png", ("png", "pdf"))
    assert dict(mpl.rcParams) == before
    assert [path.suffix for path in paths] == [".png", ".pdf"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_bytes().startswith(b"%PDF")


def test_an_unknown_format_is_refused(measured, tmp_path):
    with pytest.raises(rs.InputError, match="format must be one of"):
        save_figure(learning(measured), tmp_path / "figure.bmp")
