"""Adapters of the PEFT library itself: their changes are those of the models that PEFT merges."""

import copy
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoint_cases import reasons
from safetensors.torch import load_file, save_file
from torch import nn

import rankscope as rs
from lazily import Lazily

peft = Lazily("peft")
pytorch_utils = Lazily("transformers.pytorch_utils")

pytestmark = pytest.mark.filterwarnings("ignore")


class Block(nn.Module):
    """Two linear layers, the first is square, and a transposed one as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.up_proj, self.c_fc = nn.Linear(12, 12), nn.Linear(12, 64), pytorch_utils.Conv1D(16, 12)


class Experts(nn.Module):
    """Stacks of three matrices as parameters."""

    def __init__(self, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        shapes = ((3, 12, 16), (3, 8, 8)) if is_transposed else ((3, 16, 12), (3, 12, 8))
        self.gate_up_proj, self.down_proj = (nn.Parameter(torch.randn(shape)) for shape in shapes)


class Model(nn.Module):
    """A layer of every kind."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 12)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.conv, self.conv1, self.point = nn.Conv2d(6, 32, 3), nn.Conv1d(6, 32, 3), nn.Conv2d(8, 8, 1)
        self.attn = nn.MultiheadAttention(12, 2)
        self.experts, self.turned = Experts(False), Experts(True)
        self.lstm = nn.LSTM(16, 16, 2, bidirectional=True)
        self.head = nn.Linear(12, 5)


def save_trained(config, folder, scale=0.05):
    """Return the weights before and after a random change of an adapter, merged by PEFT, which is saved in a folder."""
    torch.manual_seed(0)
    base = Model()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = peft.get_peft_model(base, config)
    if getattr(config, "init_lora_weights", True) == "pissa_niter_4":
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(folder.parent / "pissa_init")
        model.peft_config["default"].init_lora_weights = "pissa_niter_4"
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad and "ranknum" not in name:
                value += scale * torch.randn_like(value)
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    model.save_pretrained(folder)
    return before, merged, model


def singular_values(before, after):
    """Return those of the change of each matrix that changed, by the names of rows."""
    changes = {}
    for name, W in after.items():
        dW = W.double() - before[name].double()
        if W.ndim == 3 and name.startswith(("experts", "turned")):
            changes |= {f"{name}[expert {e}]": one for e, one in enumerate(dW)}
        elif W.ndim > 1:
            changes[name] = dW.flatten(1)
    return {name: torch.linalg.svdvals(dW) for name, dW in changes.items() if dW.any()}


def assert_equal_to_merged(frame, before, merged):
    expected = singular_values(before, merged)
    assert set(frame.index) == set(expected)
    for name, row in frame.iterrows():
        s, found = expected[name], torch.tensor(row.singular_values)
        assert (s[: len(found)] - found).abs().max() < 1e-5 * s[0], name
        assert row["shape"] == (tuple(before[name].shape) if "[" not in name else row["shape"])


LINEAR = ["q_proj", "up_proj"]
CONVOLUTIONS = ["conv", "conv1", "point"]
MIXED = ["up_proj", "c_fc", "emb", *CONVOLUTIONS]
PATTERNS = {
    "rank_pattern": {"layers.1.up_proj": 2, "conv": 6},
    "alpha_pattern": {r"(up|down)_proj": 7, "^emb": 3, r"^layers\.[0-1]\.c_.*$": 1},
}
PARAMETERS = [f"{of}.{p}" for of in ("experts", "turned") for p in ("down_proj", "gate_up_proj")] + [
    "lstm.weight_hh_l1_reverse",
    "lstm.weight_hh_l0",
    "lstm.weight_ih_l0",
]
FROM_FACTORS = {
    "lora": lambda: peft.LoraConfig(r=3, lora_alpha=5, target_modules=MIXED),
    "gaussian": lambda: peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="gaussian", target_modules=LINEAR),
    "orthogonal": lambda: peft.LoraConfig(r=4, lora_alpha=5, init_lora_weights="orthogonal", target_modules=LINEAR),
    "mica": lambda: peft.LoraConfig(r=4, lora_alpha=5, init_lora_weights="mica", target_modules=LINEAR),
    "rslora": lambda: peft.LoraConfig(r=4, lora_alpha=5, use_rslora=True, target_modules=MIXED, **PATTERNS),
    "patterns": lambda: peft.LoraConfig(r=4, lora_alpha=5, target_modules=MIXED, **PATTERNS),
    "bias": lambda: peft.LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR, lora_bias=True),
    "adalora": lambda: peft.AdaLoraConfig(
        init_r=5, lora_alpha=8, total_step=9, target_modules=["up_proj", "c_fc", "conv"]
    ),
    "loha": lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=LINEAR + CONVOLUTIONS, rank_pattern={"up_proj": 5}),
    "loha cores": lambda: peft.LoHaConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=CONVOLUTIONS),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=LINEAR + CONVOLUTIONS),
    "lokr cores": lambda: peft.LoKrConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=CONVOLUTIONS),
    "lokr both": lambda: peft.LoKrConfig(r=2, alpha=3, decompose_both=True, target_modules=["up_proj"]),
    "lokr whole": lambda: peft.LoKrConfig(r=16, alpha=3, target_modules=LINEAR + CONVOLUTIONS),
}


@pytest.mark.parametrize("kind", FROM_FACTORS)
def test_rows_are_those_of_the_merged_model(tmp_path, kind):
    before, merged, _ = save_trained(FROM_FACTORS[kind](), tmp_path / "adapter", 0.5)
    over, alone = rs.compare(before, tmp_path / "adapter"), rs.compare(tmp_path / "adapter")
    assert_equal_to_merged(over, before, merged)
    assert set(alone.index) == set(over.index)
    for name, row in alone.iterrows():
        assert row.singular_values == pytest.approx(over.loc[name].singular_values, rel=1e-12)


FROM_BASE = {
    "dora": (lambda: peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=MIXED), "DoRA.* give the base"),
    "pissa": (lambda: peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="pissa", target_modules=["up_proj", "c_fc"]),
              "piece of the base .*'pissa'.* give the base"),
    "olora": (lambda: peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="olora", target_modules=LINEAR),
              "piece of the base .*'olora'.* give the base"),
    "pissa and dora": (
        lambda: peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="pissa", use_dora=True, target_modules=LINEAR),
        "DoRA.* give the base",
    ),
    "parameters": (lambda: peft.LoraConfig(r=2, lora_alpha=5, target_modules=[], target_parameters=PARAMETERS),
                   "target_parameters.* give the base"),
}  # fmt: skip


def test_other_processes_measure_the_same(tmp_path):
    config = peft.LoraConfig(r=3, use_dora=True, target_modules=["up_proj", "c_fc"])
    before, merged, _ = save_trained(config, tmp_path / "adapter")
    save_file(before, tmp_path / "before.safetensors")
    with ThreadPoolExecutor(2) as executor:  # opens the files anew, as other processes do
        found = rs.checkpoints.inspect(tmp_path / "before.safetensors", tmp_path / "adapter", executor=executor)
    assert_equal_to_merged(found.to_dataframe(), before, merged)


@pytest.mark.parametrize("kind", FROM_BASE)
def test_what_depends_on_the_base_is_that_of_the_merged_model(tmp_path, kind):
    config, sentence = FROM_BASE[kind]
    before, merged, _ = save_trained(config(), tmp_path / "adapter")
    assert_equal_to_merged(rs.compare(before, tmp_path / "adapter", gates=False), before, merged)
    alone = rs.compare(tmp_path / "adapter")
    assert len(alone) == 0
    assert all(re.search(sentence, reason) for reason in reasons(alone).values())


def test_the_input_projections_of_attention_are_those_of_the_merged_model(tmp_path):
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["attn"], alpha_pattern={"attn": 1})
    before, merged, _ = save_trained(config, tmp_path / "adapter")
    frame = rs.compare(before, tmp_path / "adapter")
    assert list(frame.index) == ["attn.in_proj_weight"]
    expected = singular_values(before, merged)
    assert frame.iloc[0].singular_values == pytest.approx(expected["attn.in_proj_weight"][:2].tolist(), rel=1e-5)
    assert "adds the change twice" in reasons(frame)["attn.out_proj.weight"]


def test_weights_that_are_loaded_are_the_merged_ones(tmp_path):
    config = peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=["up_proj", "conv"], modules_to_save=["head"], bias="all"
    )
    before, merged, _ = save_trained(config, tmp_path / "adapter")
    model = Model()
    model.load_state_dict(before)
    for loaded in (rs.load_weights(model, tmp_path / "adapter").state_dict(),):
        for name, value in merged.items():
            torch.testing.assert_close(loaded[name], value)
    frame = rs.compare(before, tmp_path / "adapter")
    assert_equal_to_merged(frame, before, merged)
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=[], target_parameters=PARAMETERS)
    before, merged, _ = save_trained(config, tmp_path / "experts")
    model.load_state_dict(before)
    loaded = rs.load_weights(model, tmp_path / "experts").state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(loaded[name], value)


def test_initial_factors_come_from_their_folder_or_from_peft(tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="pissa_niter_4", target_modules=["up_proj"])
    before, merged, model = save_trained(config, tmp_path / "adapter")
    assert_equal_to_merged(rs.compare(before, tmp_path / "adapter"), before, merged)
    assert rs.compare(tmp_path / "adapter").numerical_rank.tolist() == [6, 6]
    initial = tmp_path / "pissa_init"
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(initial))
    assert_equal_to_merged(rs.compare(before, tmp_path / "converted"), before, merged)
    shutil.rmtree(initial)
    for frame in (rs.compare(before, tmp_path / "adapter"), rs.compare(tmp_path / "adapter")):
        assert len(frame) == 0
        assert "initial factors are not there" in reasons(frame)["layers.0.up_proj.weight"]


def test_the_residual_model_is_no_base_of_pissa(tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights="pissa", target_modules=["up_proj"])
    _, _, model = save_trained(config, tmp_path / "adapter", 0.01)
    residual = {name: value.clone() for name, value in model.unload().state_dict().items()}
    frame = rs.compare(residual, tmp_path / "adapter")
    assert len(frame) == 0
    assert "not the residual model" in reasons(frame)["layers.1.up_proj.weight"]


def test_an_embedding_that_is_adapted_is_measured_and_replaced_tokens_are_not(tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["emb"])
    before, merged, _ = save_trained(config, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    # PEFT copies the embedding too if it was resized.
    key = "base_model.model.emb.base_layer.weight"
    save_file(load_file(path) | {key: before["emb.weight"]}, path)
    assert_equal_to_merged(rs.compare(before, tmp_path / "adapter"), before, merged)
    assert rs.compare(tmp_path / "adapter").numerical_rank.tolist() == [3]
    for copied in (before["emb.weight"] + 1, torch.randn(32, 12)):
        save_file(load_file(path) | {key: copied}, path)
        frame = rs.compare(before, tmp_path / "adapter")
        assert len(frame) == 0
        assert "own copy of this weight" in reasons(frame)["emb.weight"]
    config = peft.LoraConfig(r=2, target_modules=["up_proj"], trainable_token_indices={"emb": [1, 3]})
    before, _, _ = save_trained(config, tmp_path / "tokens")
    frame = rs.compare(before, tmp_path / "tokens")
    assert list(frame.index) == ["layers.0.up_proj.weight", "layers.1.up_proj.weight"]
    assert "trainable_token_indices" in reasons(frame)["emb.weight"]


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        ("grouped", {}, "a convolution in groups"),
        ("square", {}, "not known whether it is stored"),
        ("plain", {"use_bdlora": {"nblocks": 2}}, "block-diagonal"),
        ("plain", {"use_new": True}, "not known here: 'use_new'"),
        ("plain", {"r": 4}, "have the rank 2, but adapter_config.json has 4"),
        ("plain", {"init_lora_weights": "loftq"}, "init_lora_weights 'loftq'"),
        ("plain", {"layer_replication": [[0, 1], [0, 1]]}, "layer_replication"),
    ],
)
def test_what_cannot_be_known_is_left_out(tmp_path, kind, config, sentence):
    modules = {"grouped": ["conv"], "square": ["q_proj", "up_proj", "c_fc"], "plain": ["up_proj"]}[kind]
    before, _, _ = save_trained(peft.LoraConfig(r=2, target_modules=modules), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if kind == "grouped":
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        stored = load_file(file)
        name = "base_model.model.conv.lora_B.weight"
        save_file(stored | {name: stored[name][:, :1].contiguous()}, file)
    frame = rs.compare(before, tmp_path / "adapter")
    assert any(re.search(sentence, reason) for reason in reasons(frame).values())
    assert len(frame) == (4 if kind == "square" else 0)


def test_the_state_of_a_model_in_training_has_no_scale(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["up_proj", "emb"], modules_to_save=["head"])
    before, merged, model = save_trained(config, tmp_path / "adapter")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "training.pt")
    for after in (tmp_path / "training.pt", model.state_dict(), model):
        frame = rs.compare(before, after)
        assert list(frame.index) == ["head.weight"]
        assert frame.loc["head.weight"].norm == pytest.approx(
            float((merged["head.weight"] - before["head.weight"]).norm())
        )
        assert "alpha / r is not in a state dict" in reasons(frame)["layers.0.up_proj.weight"]
        with pytest.raises(rs.InputError, match=r"'emb\.weight' is skipped: adapted by factors"):
            rs.compare(before, after, layers=["emb.weight"])
        assert reasons(frame)["conv.weight"] == "the same before and after"


def test_an_adapter_is_found_by_the_path_of_its_file_and_in_a_subfolder(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["up_proj"])
    _, _, model = save_trained(config, tmp_path / "run" / "checkpoint-500")
    wanted = rs.compare(tmp_path / "run" / "checkpoint-500")
    for path in ("run", "run/checkpoint-500/adapter_model.safetensors", "run/checkpoint-500/adapter_config.json"):
        assert rs.compare(tmp_path / path).norm.tolist() == wanted.norm.tolist()
    model.save_pretrained(tmp_path / "run" / "checkpoint-900")
    with pytest.raises(rs.InputError, match="the adapters checkpoint-500, checkpoint-900; name one"):
        rs.compare(tmp_path / "run")
    (tmp_path / "run" / "checkpoint-500" / "adapter_config.json").unlink()
    with pytest.raises(rs.InputError, match=r"without their scale; give the folder that also has adapter_config\.json"):
        rs.compare(tmp_path / "run" / "checkpoint-500" / "adapter_model.safetensors")


def test_other_kinds_are_refused_by_name(tmp_path):
    for config, sentence in (
        (peft.IA3Config(target_modules=["up_proj"], feedforward_modules=["up_proj"]), "'IA3'.* multiplies the weights"),
        (peft.VeraConfig(r=2, target_modules=["up_proj"]), "'VERA'.* matrices shared by all layers"),
        (peft.OFTConfig(oft_block_size=4, target_modules=["up_proj"]), "'OFT'.* multiplies the weights"),
        (peft.FourierFTConfig(n_frequency=4, target_modules=["up_proj"]), "'FOURIERFT'.* another formula"),
    ):
        model = peft.get_peft_model(Model(), config)
        model.save_pretrained(tmp_path / config.peft_type)
        with pytest.raises(rs.InputError, match=sentence):
            rs.compare(tmp_path / config.peft_type)
