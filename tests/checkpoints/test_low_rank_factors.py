"""Factors of the change: they multiply to the best approximation, and PEFT adds exactly what was extracted."""

import copy
import json

import numpy as np
import pytest
import torch
from checkpoint_cases import changed, low_rank, transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rankscope as rs
from lazily import Lazily
from rankscope.checkpoints import ranks

peft = Lazily("peft")
transformers = Lazily("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rank_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*alpha_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), rank=st.integers(1, 14), seed=st.integers(0, 5))
def test_factors_multiply_to_the_best_approximation(rows, columns, rank, seed):
    dW = torch.randn(rows, columns, generator=torch.manual_seed(seed), dtype=torch.float64)
    factors = rs.low_rank_factors({"w": torch.zeros_like(dW)}, {"w": dW}, rank)
    A, B = factors["w"]
    kept = min(rank, rows, columns)
    assert (A.shape, B.shape, factors.ranks) == ((kept, columns), (rows, kept), {"w": kept})
    s = torch.linalg.svdvals(dW)
    error = torch.linalg.matrix_norm(dW - B.double() @ A.double(), 2).item()
    assert error == pytest.approx(s[kept].item() if kept < len(s) else 0, abs=1e-5)
    share = float(s[:kept].square().sum() / s.square().sum())
    assert factors.matrices()[0].share == pytest.approx(share, rel=1e-12)


def test_each_rule_gives_each_matrix_its_own_rank():
    before = {f"{name}.weight": torch.zeros(80, 60) for name in ("three", "eight", "same", "noise")}
    noise = torch.randn(4, 80, 60, generator=torch.manual_seed(0))
    after = {
        "three.weight": low_rank(80, 60, 3, seed=1) + 1e-3 * noise[0],
        "eight.weight": low_rank(80, 60, 8, seed=2) + 1e-3 * noise[1],
        "same.weight": torch.zeros(80, 60),
        "noise.weight": noise[2],
    }
    automatic = rs.low_rank_factors(before, after)
    assert automatic.ranks == {"three.weight": 3, "eight.weight": 8}
    assert [one.name for one in automatic.left_out] == ["noise.weight"]
    for energy in (0.5, 0.999, 1.0):
        factors = rs.low_rank_factors(before, after, f"energy:{energy}")
        assert set(factors) == {"three.weight", "eight.weight", "noise.weight"}
        for name, (A, B) in factors.items():
            s2 = torch.linalg.svdvals(after[name].double()).square().numpy()
            wanted = int(np.searchsorted(np.cumsum(s2) / s2.sum(), energy * (1 - 1e-12))) + 1
            assert len(A) == min(wanted, 60)
            if energy == 1:
                assert torch.linalg.matrix_norm(B.double() @ A.double()).item() == pytest.approx(
                    torch.linalg.matrix_norm(after[name].double()).item(), rel=1e-6
                )


def test_large_matrices_by_their_leading_triplets(monkeypatch):
    monkeypatch.setattr(ranks, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(ranks, "FIRST_COUNT", 2)
    dW = low_rank(80, 60, 4) + 1e-3 * torch.randn(80, 60, generator=torch.manual_seed(0), dtype=torch.float64)
    U, s, Vt = torch.linalg.svd(dW, full_matrices=False)
    for rule in (4, "auto", "energy:0.99"):
        A, B = rs.low_rank_factors({"w": torch.zeros(80, 60)}, {"w": dW}, rule)["w"]
        torch.testing.assert_close((B @ A).double(), (U[:, :4] * s[:4]) @ Vt[:4], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [0, -1, 1.5, "3", "energy:0", "energy:1.1", "energy:x", "all"])
def test_a_rank_that_is_none_is_refused(rank):
    with pytest.raises(rs.InputError, match="rank must be a whole number >= 1"):
        rs.low_rank_factors(transformer(), transformer(), rank)


def plant(model, rank, names=lambda name: True, scale=0.5):
    """Return a copy of a model with a change of that rank in each matrix."""
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for seed, (name, value) in enumerate(tuned.named_parameters()):
            if value.ndim > 1 and names(name):
                matrices = value if value.ndim == 3 and "expert" in name else value.flatten(1)[None]
                for one in matrices:
                    one += low_rank(*one.shape, min(rank, *one.shape), seed=seed, scale=scale).float()
    return tuned


def output(model, x):
    with torch.no_grad():
        y = model(x)
    return getattr(y, "logits", y)


def check_in_peft(model, tuned, folder, x, merge=True):
    """Check that the adapter turns `model` into `tuned`, merged and not."""
    first, wanted = output(model.eval(), x), output(tuned.eval(), x)
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(model), folder)
    for got in (adapted, *([adapted.merge_and_unload()] if merge else [])):
        assert float((output(got, x) - wanted).norm() / (wanted - first).norm()) < 1e-5


def read_back(pair, folder, factors):
    """Check that `compare` finds the same changes in the adapter."""
    layers = list(dict.fromkeys(name.partition("[")[0] for name in factors))
    whole, read = rs.compare(*pair, layers=layers), rs.compare(pair[0], folder)
    assert set(factors) <= set(read.index) == set(whole.index)
    np.testing.assert_allclose(read.norm, whole.norm[read.index], rtol=1e-5)


def saved(model, tuned, tmp_path):
    """Save two models of transformers as folders."""
    for which, one in (("before", model), ("after", tuned)):
        one.save_pretrained(tmp_path / which)
    return tmp_path / "before", tmp_path / "after"


def llama():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2,
                                                                n_head=2))  # fmt: skip


TOKENS = torch.arange(12).reshape(2, 6)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_models_of_transformers_in_peft(make, tmp_path):
    model = make()
    tuned = plant(model, 3, lambda name: "wte" not in name and "embed_tokens" not in name)
    states = [{name: value.clone() for name, value in one.state_dict().items()} for one in (model, tuned)]
    for number, pair in enumerate(((model, tuned), states, saved(model, tuned, tmp_path))):
        layers = ["*", *(["transformer.wpe.weight"] if make is gpt2 else [])]
        factors = rs.low_rank_factors(*pair, 32 if number else "auto", layers=layers)
        assert {one.format for one in factors.matrices()} == {"PEFT"}
        assert number or set(factors.ranks.values()) == {3}
        folder = factors.save(tmp_path / f"adapter{number}")
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["target_parameters"] is None
        assert config["fan_in_fan_out"] is (make is gpt2)
        check_in_peft(model, tuned, folder, TOKENS)
        assert set(rs.compare(pair[0], folder).index) == set(factors)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_an_output_layer_that_is_the_embedding_is_adapted_with_it(make, tmp_path):
    config = make().config
    config.tie_word_embeddings = True
    model = type(make())(config)
    tuned = plant(model, 3)
    embedding = "model.embed_tokens.weight" if make is llama else "transformer.wte.weight"
    for number, pair in enumerate(((model, tuned), saved(model, tuned, tmp_path))):
        factors = rs.low_rank_factors(*pair, 40, layers=["*", embedding])
        assert "lm_head.weight" not in factors
        folder = factors.save(tmp_path / f"adapter{number}")
        if make is llama:
            # PEFT merges it with a warning, as both layers have a change of the one weight.
            check_in_peft(model, tuned, folder, TOKENS, merge=False)
        else:
            (beside,) = (one for one in factors.matrices() if one.format == "rankscope")
            assert (beside.name, "ties only" in beside.reason) == (embedding, True)
    reasons = {one.name: one.reason for one in rs.low_rank_factors(model, tuned, 40).left_out}
    assert reasons["lm_head.weight"].startswith(f"the same weight as '{embedding}'")


def test_names_are_those_of_the_model_with_its_prefix(tmp_path):
    model = gpt2()
    tuned = plant(model, 2, lambda name: "c_" in name)
    # As the published file of GPT-2, which is without the head.
    before = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    before.pop("lm_head.weight")
    factors = rs.low_rank_factors(before, tuned.state_dict(), 32)
    check_in_peft(model, tuned, factors.save(tmp_path), TOKENS)


def test_transposed_layers_beside_others_are_adapted_as_parameters(tmp_path):
    Conv1D = transformers.pytorch_utils.Conv1D
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(8, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Sequential(Conv1D(5, 6)))
    tuned = plant(model, 2)
    x = torch.randn(3, 8)
    for number, pair in enumerate(((model, tuned), (dict(model.state_dict()), tuned.state_dict()))):
        check_in_peft(model, tuned, rs.low_rank_factors(*pair, 8).save(tmp_path / str(number)), x)
    given = rs.low_rank_factors(*pair, 8, layers=["0.weight", "3.0.weight"], transposed=["*"])
    folder = given.save(tmp_path / "given")
    assert json.loads((folder / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    check_in_peft(model, plant(model, 2, lambda name: name in given), folder, x)
    with pytest.raises(rs.InputError, match="transposed must name weights that are extracted, got 'c_attn'"):
        rs.low_rank_factors(*pair, 8, transposed=["c_attn"])


def test_ranks_belong_to_one_layer_each_where_names_end_alike(tmp_path):
    torch.manual_seed(0)
    inner = nn.ModuleDict({"proj": nn.Linear(8, 8), "other": nn.Linear(8, 8)})
    model = Chain({"proj": nn.Linear(8, 8), "inner": Chain(inner)})
    tuned = plant(plant(model, 1, lambda name: name == "proj.weight"), 4, lambda name: name == "inner.proj.weight")
    folder = rs.low_rank_factors(model, tuned, "energy:1").save(tmp_path / "both")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert {**config["rank_pattern"], "default": config["r"]} in (
        {"^proj": 1, "default": 4},
        {"inner.proj": 4, "default": 1},
    )
    check_in_peft(model, tuned, folder, torch.randn(3, 8))
    tuned = plant(model, 1, lambda name: name == "proj.weight")
    check_in_peft(model, tuned, rs.low_rank_factors(model, tuned, 2).save(tmp_path / "one"), torch.randn(3, 8))


class Chain(nn.ModuleDict):
    """Modules one after the other; of a recurrent one the states."""

    def forward(self, x):
        for module in self.values():
            x = module(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


CONVOLUTIONS = {
    "a": nn.Conv2d(3, 6, 3, stride=2),
    "b": nn.Conv2d(6, 6, 1),
    "c": nn.Flatten(2),
    "d": nn.Conv1d(6, 4, 3, padding=1),
    "e": nn.Unflatten(2, (3, 3, 1)),
    "f": nn.Conv3d(4, 2, (2, 2, 1)),
}
GROUPED = {"a": nn.Conv2d(4, 4, 3, groups=2), "b": nn.Conv2d(4, 4, 3, dilation=2), "c": nn.ConvTranspose2d(4, 2, 3)}


def test_convolutions_in_peft_and_those_it_cannot_hold_beside(tmp_path):
    model = Chain(CONVOLUTIONS)
    tuned = plant(model, 2)
    x = torch.randn(2, 3, 7, 7)
    for number, pair in enumerate(((model, tuned), (dict(model.state_dict()), tuned.state_dict()))):
        folder = rs.low_rank_factors(*pair, 99).save(tmp_path / str(number))
        # PEFT 0.21 merges no Conv3d whose kernel begins with 1 x 1.
        check_in_peft(model, tuned, folder, x)
    model = Chain(GROUPED)
    tuned = plant(model, 2)
    factors = rs.low_rank_factors(model, tuned, "energy:1")
    assert [one.format for one in factors.matrices()] == ["rankscope"] * 3
    for word, one in zip(("2 groups", "dilated", "ConvTranspose2d"), factors.matrices(), strict=True):
        assert word in one.reason
    folder = factors.save(tmp_path / "own")
    assert [path.name for path in folder.iterdir()] == ["rankscope_factors.safetensors"]
    for frame in (rs.compare(folder), rs.compare(model, folder)):
        whole = rs.compare(model, tuned)
        assert list(frame.index) == list(whole.index)
        np.testing.assert_allclose(frame.norm, whole.norm, rtol=1e-5)
        assert frame["shape"].tolist() == whole["shape"].tolist()
    loaded = rs.load_weights(model, folder)
    torch.testing.assert_close(output(loaded, torch.ones(1, 4, 9, 9)), output(tuned, torch.ones(1, 4, 9, 9)))


class Experts(nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.is_transposed = transposed
        generator = torch.manual_seed(0)
        shapes = ((4, 6), (3, 4)) if transposed else ((6, 4), (4, 3))
        self.gate_up_proj = nn.Parameter(torch.randn(3, *shapes[0], generator=generator))
        self.down_proj = nn.Parameter(torch.randn(3, *shapes[1], generator=generator))

    def forward(self, x):
        first, second = self.gate_up_proj, self.down_proj
        first, second = (first, second) if self.is_transposed else (first.mT, second.mT)
        return torch.relu(x @ first)[..., :3] @ second


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.LSTM(5, 7, num_layers=2, bidirectional=True, proj_size=3, batch_first=True), torch.ones(2, 4, 5)),
        (nn.GRU(5, 7, batch_first=True), torch.ones(2, 4, 5)),
        (Experts(False), torch.ones(5, 4)),
        (Experts(True), torch.ones(5, 4)),
        (nn.Embedding(9, 5), torch.arange(9)),
    ],
    ids=["lstm", "gru", "experts", "experts transposed", "embedding of another name"],
)
def test_parameters_of_other_modules_in_peft(module, x, tmp_path):
    model = Chain({"experts": module})
    tuned = plant(model, 2)
    for number, pair in enumerate(((model, tuned), (dict(model.state_dict()), tuned.state_dict()))):
        factors = rs.low_rank_factors(*pair, "energy:1")
        assert {one.format for one in factors.matrices()} == {"PEFT"}
        folder = factors.save(tmp_path / str(number))
        check_in_peft(model, tuned, folder, x)
        read_back(pair, folder, factors)


def test_experts_of_which_the_layout_is_not_known_are_beside(tmp_path):
    before = {"l.experts.w": torch.zeros(3, 6, 6), "alone": torch.zeros(6, 6)}
    after = {"l.experts.w": torch.zeros(3, 6, 6), "alone": low_rank(6, 6, 2).float()}
    after["l.experts.w"][1] = low_rank(6, 6, 1).float()
    factors = rs.low_rank_factors(before, after, "energy:0.9999")
    assert factors.ranks == {"l.experts.w[expert 1]": 1, "alone": 2}
    assert [one.format for one in factors.matrices()] == ["rankscope"] * 2
    folder = factors.save(tmp_path / "own")
    assert rs.compare(folder).norm.to_dict() == pytest.approx({"l.experts.w[expert 1]": 1, "alone": 2**0.5})


def test_what_changed_and_is_not_in_the_adapter_is_named(tmp_path):
    torch.manual_seed(0)
    before = {"emb.weight": torch.zeros(9, 4), "a.weight": torch.zeros(4, 5), "a.bias": torch.zeros(4)}
    after = {"emb.weight": torch.ones(9, 4), "a.weight": torch.ones(4, 5), "a.bias": torch.zeros(4)}
    factors = rs.low_rank_factors(before, after, 1)
    assert [one.name for one in factors.left_out] == ["emb.weight"]
    assert not rs.low_rank_factors(before, after, 1, layers=["*.weight", "emb.weight"]).left_out
    assert [one.name for one in rs.low_rank_factors(after, after | {"a.bias": torch.ones(4)}, 1).left_out] == ["a.bias"]
    folder = factors.save(tmp_path)
    with pytest.raises(rs.InputError, match=r"folder must be one without an adapter, got .* choose another one"):
        factors.save(folder)
    factors.save(folder, overwrite=True)
    with pytest.raises(rs.InputError, match="after must differ from before"):
        rs.low_rank_factors(before, before, 1).save(tmp_path / "none")


def test_a_factor_of_an_adapter_again(tmp_path):
    before, after = {"q_proj.weight": torch.zeros(6, 5)}, {"q_proj.weight": low_rank(6, 5, 3)}
    folder = rs.low_rank_factors(before, after, 3).save(tmp_path / "three")
    A, B = rs.low_rank_factors(before, folder, 1)["q_proj.weight"]
    assert torch.linalg.matrix_norm(B @ A).item() == pytest.approx(1, rel=1e-5)


def test_chosen_layers_only():
    before = transformer()
    factors = rs.low_rank_factors(before, changed(before), 2, layers=["*.q_proj.weight", "lm_head.weight"])
    assert list(factors) == [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)] + ["lm_head.weight"]
