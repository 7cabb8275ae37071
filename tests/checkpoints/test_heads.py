"""Heads of attention, found in models of transformers: a block of one head changes the attention of that head alone."""

import json

import pytest
import torch
from checkpoint_cases import reasons
from safetensors.torch import save_file

import rankscope as rs
from lazily import Lazily

transformers = Lazily("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 40}
FALCON = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 40}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 40, "n_positions": 16}
CONFIGS = {
    "GPT-2": (lambda: transformers.GPT2Config(**GPT), 4),
    "StarCoder": (lambda: transformers.GPTBigCodeConfig(**GPT, multi_query=True), 1),
    "GPT-NeoX": (lambda: transformers.GPTNeoXConfig(**SIZES), 4),
    "Falcon 40B": (lambda: transformers.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2), 2),
    "CodeGen": (lambda: transformers.CodeGenConfig(**GPT | {"n_head": 8}, rotary_dim=4), 8),
    "Phi-3": (lambda: transformers.Phi3Config(**SIZES, num_key_value_heads=2, pad_token_id=0), 2),
    "Llama": (lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2), 2),
    "BERT": (lambda: transformers.BertConfig(**SIZES), 4),
}
QUERIES = ("q_proj", "query")
KEYS = ("k_proj", "key")
VALUES = ("v_proj", "value")


def model_of(name):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[name][0](), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


@torch.no_grad()
def maps(model):
    """Return the attention of the first layer, (heads, tokens, tokens)."""
    return model(input_ids=torch.arange(3, 9)[None], output_attentions=True).attentions[0][0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_belongs_to_its_head(name):
    """The output of a block is changed at one token: of a query, one row of a map changes, of a key, one column."""
    model = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain, token = maps(model), 2
    heads, shared = len(plain), CONFIGS[name][1]
    after = {key: value + torch.randn_like(value) for key, value in before.items()}
    frame = rs.compare(model, after, heads="auto")  # a module has its configuration
    blocks = frame[frame.block.notna()]
    assert not [key for key in reasons(frame) if "[heads]" in key]
    counts = {"q": 0, "k": 0, "v": 0, "output": 0}
    modules = dict(model.named_modules())
    for row in blocks.itertuples():
        module = modules[row.tensor.removesuffix(".weight")]
        kind, head = _kind(row, module)
        counts[kind] += 1
        if kind == "output":
            continue
        rows = _rows(row, module, after[row.tensor] - before[row.tensor])

        def change(module, inputs, output, rows=rows):
            output = output.clone()
            output[:, token, rows] += 3
            return output

        handle = module.register_forward_hook(change)
        changed = (maps(model) - plain).abs() > 1e-6
        handle.remove()
        where = [h for h in range(heads) if changed[h].any()]
        each = heads // shared
        if kind == "v":
            assert not where, row.Index
        elif kind == "q":
            assert where == [head], row.Index
            assert changed[head].any(1).nonzero().flatten().tolist() == [token]
        else:
            assert where == list(range(head * each, (head + 1) * each)), row.Index
            if name != "BERT":  # Earlier tokens do not attend to later ones.
                assert not changed[:, :token].any()
    assert counts == {"q": heads, "k": shared, "v": shared, "output": heads}


def _kind(row, module):
    if row.block.startswith("head"):
        last = row.tensor.removesuffix(".weight").rsplit(".", 1)[-1]
        kinds = {"q": QUERIES, "k": KEYS, "v": VALUES}
        return next((kind for kind, names in kinds.items() if last in names), "output"), int(row.block.split()[1])
    return row.block[0], int(row.block[1:])


def _rows(row, module, change):
    """Return the rows of a block, by the norm of the change of each possible place."""
    change = (change.t() if type(module).__name__ == "Conv1D" else change).double()
    size = row.shape[1] if type(module).__name__ == "Conv1D" else row.shape[0]
    found = [
        slice(start, start + size)
        for start in range(0, len(change), size)
        if abs(float(change[start : start + size].norm()) - row.norm) < 1e-6 * row.norm
    ]
    assert len(found) == 1
    return found[0]


def test_heads_of_each_model_of_several(tmp_path):
    config = {
        "text_config": {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16},
        "vision_config": {"model_type": "x", "num_heads": 2, "hidden_size": 16, "embed_dim": 8},
    }
    state = {
        "model.language_model.layers.0.self_attn.q_proj.weight": torch.randn(16, 16),
        "model.language_model.layers.0.self_attn.k_proj.weight": torch.randn(8, 16),
        "model.visual.blocks.0.attn.qkv.weight": torch.randn(24, 8),
        "model.visual.blocks.0.attn.proj.weight": torch.randn(8, 8),
        "elsewhere.q_proj.weight": torch.randn(16, 16),
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    after = {name: value + 1 for name, value in state.items()}
    frame = rs.compare(tmp_path, after, heads="auto")
    counts = frame[frame.block.notna()].tensor.value_counts().to_dict()
    assert list(counts.values()) == [6, 4, 2, 2]
    assert "several sections" in reasons(frame)["elsewhere.q_proj.weight[heads]"]
    wrong = reasons(rs.compare(tmp_path, after, heads=3))
    assert (
        "config.json has 4 heads for it, not 3" in wrong["model.language_model.layers.0.self_attn.q_proj.weight[heads]"]
    )
    with pytest.raises(rs.InputError, match=r"no config\.json is beside"):
        rs.compare(state, after, heads="auto")


def test_a_head_of_another_size_than_configured_is_no_head(tmp_path):
    """The queries of Qwen3-Next have a gate beside each head."""
    state = {f"l.{which}_proj.weight": torch.randn(rows, 16) for which, rows in {"q": 64, "k": 16, "v": 16}.items()}
    save_file(state, tmp_path / "model.safetensors")
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "hidden_size": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    frame = rs.compare(tmp_path, {name: value + 1 for name, value in state.items()}, heads="auto")
    assert reasons(frame)["l.q_proj.weight[heads]"] == "64 are 4 heads of 16, but the model's config.json has 8"


@pytest.mark.parametrize(
    ("names", "options", "blocks"),
    [
        ({"m.in_proj.weight": (192, 64), "m.out_proj.weight": (64, 64)}, {}, 0),  # Mamba
        ({"f.key.weight": (64, 16), "f.value.weight": (16, 64), "f.receptance.weight": (16, 16)}, {}, 0),  # RWKV
        ({"f.wi.weight": (64, 16), "f.wo.weight": (16, 64)}, {}, 0),  # T5's feed-forward layers
        ({"a.q_proj.weight": (16, 16), "a.k_proj.weight": (8, 16)}, {}, 6),
        ({"a.q_proj.weight": (16, 16), "a.k_proj.weight": (8, 16)}, {"kv_heads": 2}, 6),
        ({"a.q_proj.weight": (16, 16), "a.k_proj.weight": (8, 16)}, {"kv_heads": 4}, 4),
        ({"a.k_proj.weight": (8, 16)}, {"kv_heads": 2}, 2),
        ({"a.k_proj.weight": (8, 16)}, {}, 0),
        ({"a.qkv_proj.weight": (32, 16)}, {"kv_heads": 2}, 8),
        ({"a.qkv_proj.weight": (48, 16), "a.out_proj.weight": (16, 16)}, {}, 4),  # CodeGen has its own order
        ({"a.wqkv.weight": (48, 16), "a.wo.weight": (16, 16)}, {}, 4),  # InternLM2 has its own order
        ({"a.Wqkv.weight": (48, 16), "a.Wo.weight": (16, 16)}, {}, 16),
    ],
)
def test_what_is_divided_without_a_configuration(names, options, blocks):
    before = {name: torch.randn(shape) for name, shape in names.items()}
    frame = rs.compare(before, {name: value + 1 for name, value in before.items()}, heads=4, **options)
    assert frame.block.notna().sum() == blocks
    undivided = set(frame.tensor) - set(frame[frame.block.notna()].tensor)
    if blocks:
        assert {name.removesuffix("[heads]") for name in reasons(frame)} == undivided


def test_that_there_are_no_heads_is_noted():
    before = {"m.in_proj.weight": torch.randn(24, 8)}
    frame = rs.compare(before, {"m.in_proj.weight": before["m.in_proj.weight"] + 1}, heads=4)
    assert "heads were asked for" in frame.attrs["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_heads": 2}, "kv_heads needs heads"),
        ({"heads": 0}, "heads must be"),
        ({"heads": 4, "kv_heads": 0}, "kv_heads"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    state = {"a.q_proj.weight": torch.randn(4, 4)}
    with pytest.raises(rs.InputError, match=message):
        rs.compare(state, state, **options)
