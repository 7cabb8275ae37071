"""Checkpoints made up for these tests, with changes whose rank is known."""

import json
import os

import torch
from safetensors.torch import save_file


class Hostile:
    """What a pickle makes call a function when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def reasons(frame):
    """Return why tensors were left out, by name."""
    return {one["name"]: one["reason"] for one in frame.attrs["skipped"]}


def transformer(layers=2, size=32, heads=4, seed=0):
    """Return a state dict named as Hugging Face's Llama names its own; keys and values have half as many heads."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / size**0.5

    state = {"model.embed_tokens.weight": draw(50, size)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, rows, columns in (
            ("self_attn.q_proj", size, size),
            ("self_attn.k_proj", size // 2, size),
            ("self_attn.v_proj", size // 2, size),
            ("self_attn.o_proj", size, size),
            ("mlp.up_proj", 3 * size, size),
            ("mlp.down_proj", size, 3 * size),
        ):
            state[f"{at}{name}.weight"] = draw(rows, columns)
        state[at + "input_layernorm.weight"] = torch.ones(size)
    state["model.norm.weight"] = torch.ones(size)
    state["lm_head.weight"] = draw(50, size)
    return state


def low_rank(rows, columns, rank, seed=0, scale=1.0):
    """Return a matrix of that rank whose singular values are all `scale`."""
    generator = torch.Generator().manual_seed(seed)
    U, V = (
        torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64)).Q for size in (rows, columns)
    )
    return scale * U @ V.t()


def changed(state, rank=3, scale=1.0, only=""):
    """Return a copy with a change of that rank in every matrix but the embedding."""
    return {
        name: (
            (value.double() + low_rank(*value.shape, rank, seed=index, scale=scale)).to(value.dtype)
            if value.ndim == 2 and "embed" not in name and only in name
            else value.clone()
        )
        for index, (name, value) in enumerate(state.items())
    }


def write_shards(folder, state, write=save_file, suffix="safetensors"):
    """Write a state dict in two files with their index."""
    names = list(state)
    placed = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.{suffix}"
        write({name: state[name] for name in part}, folder / file)
        placed |= dict.fromkeys(part, file)
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": placed}))
    return index


def write_adapter(folder, factors, config=None, whole=None):
    """Write a LoRA adapter's folder from {layer: (B, A)}."""
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.clone() for name, tensor in (whole or {}).items()}
    for layer, (B, A) in factors.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = A.clone().contiguous()
        tensors[f"base_model.model.{layer}.lora_B.weight"] = B.clone().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    rank = next(iter(factors.values()))[1].shape[0]
    ranks = {layer: A.shape[0] for layer, (_, A) in factors.items() if A.shape[0] != rank}
    text = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "rank_pattern": ranks} | (config or {})
    (folder / "adapter_config.json").write_text(json.dumps(text))
    return folder
