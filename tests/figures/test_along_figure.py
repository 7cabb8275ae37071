"""The figure of several checkpoints: panels for few matrices, maps for many."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.figures.along import MAX_PANELS, along


def growth(matrices, checkpoints):
    generator = torch.manual_seed(0)
    ends = {f"layers.{i}.a_rather_long_name_of_a_projection.weight": torch.randn(6, 5, generator=generator)
            for i in range(matrices)}  # fmt: skip
    states = [{name: t / checkpoints * end for name, end in ends.items()} for t in range(checkpoints)]
    return rs.compare_along(states, labels=[f"checkpoint-{500 * t}" for t in range(checkpoints)])


def drawn(grown):
    figure = along(grown.to_dataframe(), grown.checkpoints[0])
    figure.savefig(io.BytesIO(), format="png")
    return figure


@pytest.mark.parametrize("matrices", [1, 3, MAX_PANELS])
def test_few_matrices_have_a_panel_each_with_the_strengths(matrices):
    grown = growth(matrices, 4)
    axes = [ax for ax in drawn(grown).axes if ax.get_visible()]
    assert len(axes) == matrices
    for index, ax in enumerate(axes):
        stages = grown.stages[3 * index : 3 * index + 3]
        norm, *curves = ax.lines
        np.testing.assert_allclose(norm.get_ydata(), [0, *(stage.norm for stage in stages)])
        strengths = np.array([curve.get_ydata() for curve in reversed(curves)]).T
        np.testing.assert_allclose(strengths, [(0,) * len(curves), *(stage.strengths for stage in stages)])
    assert [label.get_text() for label in axes[-1].get_xticklabels()] == ["0", "500", "1000", "1500"]


@pytest.mark.parametrize(("matrices", "checkpoints"), [(MAX_PANELS + 1, 3), (100, 50)])
def test_many_have_a_row_each_in_three_maps(matrices, checkpoints):
    grown = growth(matrices, checkpoints)
    figure = drawn(grown)
    norms, overlaps, strengths = (ax.images[0].get_array() for ax in figure.axes[:3])
    expected = np.arange(1, checkpoints) / (checkpoints - 1)
    np.testing.assert_allclose(norms, np.tile(expected, (matrices, 1)))
    np.testing.assert_allclose(overlaps, 1)
    np.testing.assert_allclose(strengths, np.tile(expected, (4 * matrices, 1)), rtol=1e-6)
    assert figure.get_figheight() < 16
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_without_changes_the_figure_is_marked_empty():
    same = [{"w": torch.ones(3, 3)}] * 3
    assert drawn(rs.compare_along(same)).axes[0].texts[0].get_text() == "no measurements"
