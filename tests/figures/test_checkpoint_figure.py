"""The figure of two checkpoints: panels for few matrices, rows for many."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.figures.checkpoints import EDGE_LABEL, MAX_PANELS, NOISE_LABEL, checkpoints


def compared(count, name="layer{}_of_a_rather_long_name_of_a_projection.weight", **options):
    generator = torch.manual_seed(0)
    before = {name.format(i): torch.zeros(30, 20) for i in range(count)}
    after = {
        name: 0.1 * torch.randn(30, 20, generator=generator)
        + torch.randn(30, 1, generator=generator) @ torch.randn(1, 20, generator=generator)
        for name in before
    }
    return rs.compare(before, after, **options)


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png")
    return figure


@pytest.mark.parametrize("count", [1, 7, MAX_PANELS])
def test_few_matrices_have_a_panel_each_with_values_and_edges(count):
    frame = compared(count)
    figure = drawn(checkpoints(frame))
    axes = [ax for ax in figure.axes if ax.get_visible()]
    assert len(axes) == count
    for ax, (_, row) in zip(axes, frame.iterrows(), strict=True):
        values, edge, noise = ax.lines
        np.testing.assert_allclose(values.get_ydata(), row.singular_values)
        assert edge.get_ydata()[0] == row.random_edge
        assert noise.get_ydata()[0] == row.noise_edge


@pytest.mark.parametrize("count", [MAX_PANELS + 1, 100])
def test_many_have_a_row_each_and_the_figure_stays_a_page(count):
    frame = compared(count)
    figure = drawn(checkpoints(frame))
    rows = [(line.get_xdata(), line.get_color()) for ax in figure.axes for line in ax.lines if len(line.get_xdata())]
    blue = [x for x, color in rows if color == "#0072B2"]
    assert len(blue) == count == sum(len(ax.get_yticks()) for ax in figure.axes)
    assert [len(x) for x in blue] == frame.standing_out.tolist()
    np.testing.assert_allclose(blue[0], np.array(frame.singular_values.iloc[0])[:1] / frame.random_edge.iloc[0])
    assert figure.get_figheight() < 11
    labels = [label for ax in figure.axes for label in ax.get_yticklabels()]
    boxes = [label.get_window_extent() for label in labels]
    column = [box for box, label in zip(boxes, labels, strict=True) if label.axes is figure.axes[0]]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(column))


def test_layers_of_a_deep_model_are_drawn_by_kind_over_their_depth():
    names = [f"model.layers.{i}.{kind}.weight" for i in range(8) for kind in ("attention.q", "mlp.up")]
    frame = compared(17, "{}")
    frame.index = [*names, "head.weight"]
    figure = drawn(checkpoints(frame.assign(relative_norm=frame.norm)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["attention.q", "mlp.up"]
    for ax, column in zip(figure.axes, ("norm", "stable_rank", "rank_95", "standing_out"), strict=True):
        first, second, head = (line.get_ydata() for line in ax.lines)
        assert [*first, *second, *head] == pytest.approx(
            [*frame[column][:16:2], *frame[column][1:16:2], frame[column].iloc[16]]
        )


def test_gates_are_drawn_with_their_matrix():
    lstm = torch.nn.LSTM(20, 24)
    before = {name: torch.zeros_like(value) for name, value in lstm.state_dict().items()}
    figure = drawn(checkpoints(rs.compare(before, lstm)))
    assert [len(ax.lines) for ax in figure.axes] == [7, 7]  # four gates, the whole, two edges
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:4] == ["gate i", "gate f", "gate g", "gate o"]
    assert labels[-3:] == ["whole matrix", EDGE_LABEL, NOISE_LABEL]


def test_without_changes_the_figure_is_marked_empty():
    state = {"w": torch.ones(3, 3)}
    figure = drawn(checkpoints(rs.compare(state, state)))
    assert figure.axes[0].texts[0].get_text() == "no measurements"
