"""Two checkpoints side by side: parts, names, everything that can be wrong with one tensor, and little memory."""

import copy

import numpy as np
import pytest
import torch
from checkpoint_cases import changed, low_rank, reasons, transformer, write_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import rankscope as rs
from forking import Program
from rankscope.checkpoints import inspect
from rankscope.checkpoints.names import match


def nudged(module, scale=0.01):
    """Return a copy of a module with some of everything changed."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += scale * torch.randn_like(parameter)
    return twin


def test_a_transformer_matrix_by_matrix(tmp_path):
    before = transformer()
    after = changed(before, rank=3)
    save_file(before, tmp_path / "before.safetensors")
    (tmp_path / "after").mkdir()
    write_shards(tmp_path / "after", after)
    frame = rs.compare(tmp_path / "before.safetensors", tmp_path / "after")
    assert set(frame.index) == {name for name, value in before.items() if value.ndim == 2 and "embed" not in name}
    assert frame.numerical_rank.tolist() == [3] * 13
    assert frame.rank_99.tolist() == [3] * 13
    for name, row in frame.iterrows():
        assert row.singular_values[:3] == pytest.approx([1, 1, 1], rel=1e-5)
        assert row.initial_norm == pytest.approx(torch.linalg.matrix_norm(before[name]).item(), rel=1e-6)
        assert row.relative_norm == pytest.approx(row.norm / row.initial_norm)
    assert reasons(frame) == {
        "model.embed_tokens.weight": "an embedding, a table of vectors; it is measured if it is named among the layers",
        "model.layers.0.input_layernorm.weight": "of a normalization",
        "model.layers.1.input_layernorm.weight": "of a normalization",
        "model.norm.weight": "of a normalization",
    }


def test_heads_are_blocks_of_rows_or_of_columns():
    before = transformer(heads=4)
    after = changed(before)
    frame = rs.compare(before, after, heads=4)
    at = "model.layers.1.self_attn."
    q, k, o = (
        after[f"{at}{name}.weight"].double() - before[f"{at}{name}.weight"].double()
        for name in ("q_proj", "k_proj", "o_proj")
    )
    for head in range(4):
        expected = torch.linalg.svdvals(q[head * 8 : head * 8 + 8])
        np.testing.assert_allclose(frame.loc[f"{at}q_proj.weight[head {head}]"].singular_values, expected, rtol=1e-10)
        expected = torch.linalg.svdvals(o[:, head * 8 : head * 8 + 8])
        np.testing.assert_allclose(frame.loc[f"{at}o_proj.weight[head {head}]"].singular_values, expected, rtol=1e-10)
    # Half as many heads for the keys, each as large as one of the queries'.
    assert [name for name in frame.index if "layers.1" in name and "k_proj" in name] == [
        f"{at}k_proj.weight{part}" for part in ("", "[head 0]", "[head 1]")
    ]
    assert frame.loc[f"{at}k_proj.weight[head 1]"].norm == pytest.approx(torch.linalg.matrix_norm(k[8:]).item())
    assert not [name for name in frame.index if "mlp" in name and "[" in name]


def test_heads_of_a_fused_projection_are_queries_keys_and_values():
    attention = torch.nn.MultiheadAttention(12, 3)
    after = nudged(attention)
    frame = rs.compare(attention, after, heads=3)
    keys_of_the_second = slice(12 + 4, 12 + 8)
    dW = (after.in_proj_weight - attention.in_proj_weight).detach()[keys_of_the_second]
    assert frame.loc["in_proj_weight[k1]"].norm == pytest.approx(torch.linalg.matrix_norm(dW).item(), rel=1e-5)
    parts = frame[frame.tensor == "in_proj_weight"].block
    assert parts.isna().tolist() == [True] + [False] * 9
    assert parts.tolist()[1:] == ["q0", "q1", "q2", "k0", "k1", "k2", "v0", "v1", "v2"]
    assert frame.loc["out_proj.weight[head 2]"]["shape"] == (12, 4)


def test_heads_that_do_not_divide_are_skipped_with_their_reason():
    before = transformer()
    frame = rs.compare(before, changed(before), heads=5)
    assert reasons(frame)["model.layers.0.self_attn.q_proj.weight[heads]"] == "32 does not divide into 5 heads"
    assert len(frame) == 13


@pytest.mark.parametrize(("kind", "gates"), [(torch.nn.RNN, ""), (torch.nn.GRU, "rzn"), (torch.nn.LSTM, "ifgo")])
def test_gates_of_both_layers_and_directions(kind, gates):
    before = kind(5, 8, num_layers=2, bidirectional=True)
    after = nudged(before)
    frame = rs.compare(before, after)
    whole = [f"weight_{which}_l{layer}{way}" for layer in (0, 1) for way in ("", "_reverse") for which in ("ih", "hh")]
    assert list(frame.index) == [f"{name}{part}" for name in whole for part in ["", *(f"[{gate}]" for gate in gates)]]
    for name in whole:
        dW = (getattr(after, name) - getattr(before, name)).detach()
        for index, gate in enumerate(gates):
            row = frame.loc[f"{name}[{gate}]"]
            assert row.tensor == name
            block = dW[8 * index : 8 * index + 8]
            assert row.norm == pytest.approx(torch.linalg.matrix_norm(block).item(), rel=1e-5)
    assert list(rs.compare(before, after, gates=False).index) == whole


def test_gates_of_a_cell_and_of_an_lstm_with_a_projection():
    cell = torch.nn.GRUCell(3, 6)
    assert "weight_hh[n]" in rs.compare(cell, nudged(cell)).index
    projected = torch.nn.LSTM(3, 8, proj_size=2)
    frame = rs.compare(projected, nudged(projected))
    assert frame.loc["weight_hh_l0[o]"]["shape"] == (8, 2)
    assert "weight_hr_l0" in frame.index


@pytest.mark.parametrize("kind", [torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d])
def test_convolutions_are_unfolded(kind):
    before = kind(4, 6, 3)
    after = nudged(before)
    row = rs.compare(before, after).loc["weight"]
    assert row["shape"] == tuple(before.weight.shape)
    expected = torch.linalg.svdvals((after.weight.double() - before.weight.double()).detach().flatten(1))
    np.testing.assert_allclose(row.singular_values, expected, rtol=1e-10)


def test_whatever_is_wrong_with_one_tensor_is_its_own_reason_and_the_rest_goes_on():
    good = torch.randn(6, 5)
    full = {"good.weight": good, "also.good": good.clone()}
    bad = {
        "nan": good.clone().fill_(torch.nan),
        "inf": torch.where(good > 0, torch.inf, good),
        "same": good.clone(),
        "shape": torch.zeros(5, 6),
        "vector": torch.zeros(5),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 5),
        "int8": torch.zeros(6, 5, dtype=torch.int8),
        "count": torch.tensor(3),
        "bool": torch.ones(6, 5, dtype=torch.bool),
        "complex": torch.zeros(6, 5, dtype=torch.complex64),
        "layer.bias": torch.zeros(5),
        "emb.weight": good.clone(),
        "bn1.running_mean": torch.zeros(5),
        "experts.w1": torch.zeros(3, 6, 5),
        "codes": good.to(torch.float8_e4m3fn),
        "codes_scale": torch.tensor(1.0),
        "gone": good.clone(),
        "sparse": good.to_sparse(),
        "meta": good.to("meta"),
        "repeated": torch.zeros(1, 1).expand(10**9, 10**9),
        "pos_embed": torch.zeros(1, 7, 5),
        "huge": good.double() * 1e200,
    }
    before = full | {
        name: torch.zeros_like(value) if name in ("nan", "inf", "gone", "huge", "emb.weight") else value
        for name, value in bad.items()
    }
    before["shape"] = torch.zeros(6, 5)
    after = {name: value + 1 if name in full else value for name, value in (full | bad).items() if name != "gone"}
    after["new"] = good
    frame = rs.compare(before, after)
    assert list(frame.index) == ["good.weight", "also.good"]
    assert frame.numerical_rank.tolist() == [1, 1]
    found = reasons(frame)
    stack = {f"experts.w1[expert {i}]" for i in range(3)}
    assert set(found) == set(bad) - {"experts.w1", "codes_scale"} | {"new"} | stack
    for name, text in {
        "nan": "after must be finite, got 30 entries that are not",
        "inf": "after must be finite",
        "same": "the same before and after",
        "shape": "6 x 5 before and 5 x 6 after",
        "vector": "a vector",
        "empty": "empty, 0 x 5",
        "int8": "int8: counts, or codes of a quantization",
        "bool": "bool",
        "complex": "complex",
        "layer.bias": "a bias",
        "emb.weight": "an embedding",
        "bn1.running_mean": "normalization",
        "experts.w1[expert 2]": "the same before and after",
        "codes": "the same before and after",
        "sparse": "sparse",
        "meta": "without values",
        "repeated": "larger than the storage",
        "pos_embed": "an embedding",
        "gone": "only in before",
        "new": "only in after",
        "huge": "too large",
    }.items():
        assert text in found[name], name


@pytest.mark.parametrize(
    ("name", "embedding"),
    [
        ("model.embed_tokens.weight", True),
        ("transformer.wte.weight", True),
        ("bert.embeddings.word_embeddings.weight", True),
        ("embedding.weight", True),
        ("shared.weight", True),
        ("embed_out.weight", False),
        ("lm_head.weight", False),
        ("time_embedding.linear_1.weight", False),
        ("patch_embed.proj.weight", False),
        ("members.weight", False),
    ],
)
def test_embeddings_are_told_by_their_names(name, embedding):
    frame = rs.compare({name: torch.zeros(4, 3)}, {name: torch.ones(4, 3)})
    assert frame.empty == embedding


def test_identical_files_have_no_matrices_and_a_reason_for_each(tmp_path):
    state = transformer()
    save_file(state, tmp_path / "w.safetensors")
    frame = rs.compare(tmp_path / "w.safetensors", tmp_path / "w.safetensors")
    assert frame.empty
    assert len(reasons(frame)) == len(state)
    assert reasons(frame)["lm_head.weight"] == "the same before and after"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2])
def test_files_of_different_types_are_compared(dtype):
    W0 = torch.randn(30, 40)
    scale = 300 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    W = (W0.double() + low_rank(30, 40, 2, scale=scale)).to(dtype)
    row = rs.compare({"w": W0}, {"w": W}).loc["w"]
    assert row.numerical_rank == 2
    plain = str(dtype).removeprefix("torch.")
    assert row["dtype"] == (f"{plain}, without a scale" if dtype.itemsize == 1 else plain)


def test_a_network_that_began_from_nothing_has_no_relative_change():
    row = rs.compare({"w": torch.zeros(4, 4)}, {"w": torch.eye(4)}).loc["w"]
    assert row.initial_norm == 0.0
    assert np.isnan(row.relative_norm)


@pytest.mark.parametrize("matrix", [torch.ones(1, 1), torch.ones(1, 7), torch.ones(7, 1), torch.eye(2)])
def test_the_smallest_matrices(matrix):
    row = rs.compare({"w": torch.zeros_like(matrix)}, {"w": matrix}).loc["w"]
    assert row.numerical_rank == torch.linalg.matrix_rank(matrix).item()
    assert row.norm == pytest.approx(torch.linalg.matrix_norm(matrix).item())


def test_one_of_our_files_holds_both_halves(tmp_path):
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=16, rng=0)
    before = network.snapshot()
    rs.train(network, task, epochs=3, rng=0)
    network.save(tmp_path / "network.safetensors", initial=before.snapshot())
    frame = rs.compare(tmp_path / "network.safetensors")
    assert set(frame.index) == {"input_weights", "recurrent_weights", "output_weights"}
    assert frame.loc["recurrent_weights"].norm == pytest.approx(rs.lowrank.change(before, network).norm, rel=1e-12)
    # Beside another file, it is the network after learning.
    before.save(tmp_path / "other.safetensors", initial=before.snapshot())
    two = rs.compare(tmp_path / "other.safetensors", tmp_path / "network.safetensors")
    assert len(two) == len(two) + len(two.attrs["skipped"]) == 3
    assert rs.compare(tmp_path / "network.safetensors", before).loc["recurrent_weights"].norm > 0
    assert (
        reasons(rs.compare(tmp_path / "network.safetensors", network))["output_weights"] == "the same before and after"
    )


def test_a_single_file_of_somebody_else_is_refused(tmp_path):
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(rs.InputError, match="after is missing"):
        rs.compare(tmp_path / "w.safetensors")


def test_files_of_different_models_are_refused():
    with pytest.raises(
        rs.InputError, match=r"after must have weights named as in before: before has 'a', after has 'b'"
    ):
        rs.compare({"a": torch.zeros(2, 2)}, {"b": torch.zeros(2, 2)})
    with pytest.raises(rs.InputError, match="no tensors"):
        rs.compare({}, {"b": torch.zeros(2, 2)})


@pytest.mark.parametrize("heads", [0, -1, 1.5, True])
def test_a_wrong_number_of_heads_is_refused(heads):
    with pytest.raises(rs.InputError, match="heads must be a whole number >= 1"):
        rs.compare(transformer(), transformer(), heads=heads)


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        (["a", "b"], ["module.a", "module.b"], [("a", "module.a"), ("b", "module.b")]),
        (["_orig_mod.module.a"], ["a"], [("_orig_mod.module.a", "a")]),
        (["model.layers.0.w"], ["layers.0.w"], [("model.layers.0.w", "layers.0.w")]),
        (["a", "c"], ["c", "b"], [("a", None), ("c", "c"), (None, "b")]),
        # Two candidates for one name: nothing is guessed.
        (["a"], ["module.a", "model.a"], [("a", None), (None, "module.a"), (None, "model.a")]),
        (["model.a", "module.a"], ["a"], [("model.a", None), ("module.a", None), (None, "a")]),
        (["a", "module.a"], ["a", "module.a"], [("a", "a"), ("module.a", "module.a")]),
    ],
)
def test_names_are_matched_where_that_is_unambiguous(before, after, pairs):
    assert match(before, after).pairs == pairs


names = st.lists(
    st.sampled_from([f"{p}{n}" for p in ("", "module.", "model.", "module.model.") for n in "abc"]), unique=True
)


@given(before=names, after=names)
def test_matching_uses_every_name_once(before, after):
    pairs = match(before, after).pairs
    assert [a for a, _ in pairs if a is not None] == before
    assert sorted(b for _, b in pairs if b is not None) == sorted(after)
    assert all(a == b for a, b in pairs if a in after and a in before)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 5), scale=st.floats(1e-6, 1e6))
def test_scaling_everything_scales_the_values_and_changes_no_rank(rows, columns, seed, scale):
    generator = torch.manual_seed(seed)
    W0, dW = (torch.randn(rows, columns, generator=generator, dtype=torch.float64) for _ in range(2))
    one = rs.compare({"w": W0}, {"w": W0 + dW}).loc["w"]
    other = rs.compare({"w": scale * W0}, {"w": scale * (W0 + dW)}).loc["w"]
    assert other.norm == pytest.approx(scale * one.norm)
    for name in ("rank_90", "rank_99", "numerical_rank", "above_random_edge", "flat_bulk"):
        assert one[name] == other[name]
    transposed = rs.compare({"w": W0.t()}, {"w": (W0 + dW).t()}).loc["w"]
    np.testing.assert_allclose(transposed.singular_values, one.singular_values, rtol=1e-9, atol=1e-12)


def test_progress_is_reported_by_tensor():
    seen = []
    state = transformer()
    inspect(state, changed(state), on_progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(13))
    assert {total for _, total, _ in seen} == {13}


def test_the_table_as_csv(tmp_path):
    import pandas as pd

    state = {"w": torch.zeros(4, 6)}
    path = inspect(state, {"w": low_rank(4, 6, 2).float()}).write_csv(tmp_path / "t.csv")
    (row,) = pd.read_csv(path).itertuples()
    assert (row.name, row.shape, row.rank_99, row.numerical_rank_least) == ("w", "4x6", 2, 2)
    assert row.s1 == pytest.approx(1)


MEASURE = """
import resource
import torch
import rankscope.checkpoints as checkpoints
checkpoints.inspect(*({"w": torch.randn(8, 131072)} for _ in files))  # what is needed once
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoints.inspect(*files)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)
"""


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_files_are_streamed(tmp_path, kind):
    """Forty matrices of 4 MB, twice: reading them through takes the room of a few."""
    write = save_file if kind == "safetensors" else torch.save
    for which in ("before", "after"):
        write({f"l{i}": torch.randn(8, 131072) for i in range(40)}, tmp_path / f"{which}.{kind}")
    files = [str(tmp_path / f"{which}.{kind}") for which in ("before", "after")]
    printed, errors = Program(tmp_path, exec, MEASURE, {"files": files}).communicate()
    held = 2 * 64 * 2**20  # of each file, as much as may stay mapped
    assert errors == ""
    assert int(printed) < held + 60 * 2**20


@pytest.mark.usefixtures("forked_workers")
def test_other_processes_measure_the_same(tmp_path):
    torch.manual_seed(0)
    before = torch.nn.LSTM(6, 12, num_layers=2).state_dict()
    after = {name: value + torch.randn(value.shape) for name, value in before.items()}
    paths = tmp_path / "before.safetensors", tmp_path / "after.pt"
    save_file(before, paths[0])
    torch.save(after, paths[1])
    seen = []
    elsewhere = inspect(*paths, workers=2, on_progress=lambda done, total, name: seen.append((done, total)))
    assert elsewhere == inspect(*paths)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(rs.InputError, match="before must be a path"):
        inspect(before, paths[1], workers=2)
