"""Two adapters of one base against each other: the singular values of dW2 - dW1, relative to |dW1|."""

import pytest
import torch
from checkpoint_cases import reasons, write_adapter

import rankscope as rs


def factors(rank, seed, shape=(20, 12)):
    generator = torch.manual_seed(seed)
    return torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)


def product(B, A, scale=2.0):
    return scale * B.double() @ A.double()  # write_adapter has alpha = 2 r


def test_the_difference_has_the_rank_of_both_and_is_relative_to_the_first(tmp_path):
    one, two = factors(3, 0), factors(4, 1)
    first = write_adapter(tmp_path / "one", {"a": one, "only.first": factors(3, 5)})
    second = write_adapter(tmp_path / "two", {"a": two, "only.second": factors(4, 6)})
    frame = rs.compare(first, second)
    row = frame.loc["a.weight"]
    s = torch.linalg.svdvals(product(*two) - product(*one))
    assert row.singular_values == pytest.approx(s[:7].tolist(), rel=1e-6)
    assert row.numerical_rank == 7
    relative = (product(*two) - product(*one)).norm() / product(*one).norm()
    assert row.relative_norm == pytest.approx(float(relative), rel=1e-6)
    assert frame.loc["only.first.weight"].relative_norm == pytest.approx(1)
    assert frame.loc["only.second.weight"].numerical_rank == 4
    assert "relative to the first adapter's change" in frame.attrs["note"]
    assert torch.linalg.matrix_norm(product(*factors(4, 6))).item() == pytest.approx(
        frame.loc["only.second.weight"].norm
    )


def test_equal_changes_have_no_directions(tmp_path):
    B, A = factors(3, 0)
    first = write_adapter(tmp_path / "one", {"a": (B, A), "b": (B, A)})
    turned = torch.linalg.qr(torch.randn(3, 3, generator=torch.manual_seed(1))).Q
    second = write_adapter(tmp_path / "two", {"a": (B, A), "b": (B @ turned, turned.T @ A)})
    frame = rs.compare(first, second)
    assert reasons(frame) == {"a.weight": "the same before and after"}
    assert frame.loc["b.weight"].numerical_rank == 0


def test_what_needs_the_base_is_left_out_with_the_adapter_and_the_reason(tmp_path):
    first = write_adapter(tmp_path / "one", {"a": factors(2, 0), "c": factors(2, 1)})
    magnitude = {"base_model.model.a.lora_magnitude_vector.weight": torch.ones(20)}
    second = write_adapter(tmp_path / "two", {"a": factors(2, 2), "c": factors(2, 3)}, {"use_dora": True}, magnitude)
    frame = rs.compare(first, second)
    assert "a.weight" in reasons(frame)
    assert reasons(frame)["a.weight"].startswith(f"in {second}: ")
    second = write_adapter(tmp_path / "shape", {"a": factors(2, 2, (8, 8)), "c": factors(2, 3)})
    assert "its shape is 20 x 12 in the first adapter" in reasons(rs.compare(first, second))["a.weight"]
    with pytest.raises(rs.InputError, match="before must be the model that was adapted"):
        rs.compare(first, {"a.weight": torch.zeros(20, 12)})


def test_adapters_along_a_training_are_compared_with_the_first(tmp_path):
    B, A = factors(4, 0)
    folders = [
        write_adapter(tmp_path / f"checkpoint-{step}", {"a": (B * scale, A)}) for step, scale in enumerate((1, 2, 4))
    ]
    growth = rs.compare_along(folders)
    assert [stage.relative_norm for stage in growth.stages] == pytest.approx([1, 3])
    ratios = [a / b for a, b in zip(growth.stages[0].strengths, growth.stages[1].strengths, strict=True)]
    assert ratios == pytest.approx([1 / 3] * 4)
