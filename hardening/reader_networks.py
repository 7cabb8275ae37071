"""The readers of networks: checkpoints of trainings, saved networks, and anybody's state dicts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import rankscope as rs
import reader_seeds as made
from rankscope.checkpoints import inspect, open_checkpoint
from rankscope.checkpoints.adapter import Adapter
from rankscope.checkpoints.source import Unreadable
from rankscope.errors import InputError
from rankscope.networks.gated import GatedRNN
from reader import Reader, one_file

TENSORS = (*(name.encode() for name in made.state_dict()), b"initial.x", b"base_model.model.x.lora_A.weight")
PICKLE = (b"cos\nsystem\n", b"\x8c\x05torch\x93", b"\x94", b"K\x7f", b"J\xff\xff\xff\x7f", b"2", b"h\x00", b"}", b"(")


def _read_network(folder: Path) -> object:
    path = folder / "network.safetensors"
    loaded: list[Any] = []
    wrong = None
    for kind in (rs.RateRNN, GatedRNN):
        for initial in (False, True):
            try:
                loaded.append(kind.load(path, initial=initial))
            except InputError as error:
                wrong = error
    for network in loaded:
        weights = next(network.parameters())
        size = network.rnn.input_size if isinstance(network, GatedRNN) else weights.shape[1]
        network(torch.ones(1, 3, size, dtype=weights.dtype))
    if wrong is not None and not loaded:
        raise wrong
    return loaded


def _read_training(folder: Path) -> object:
    network, options = made.new_training()
    return rs.train(network, made.TASK, checkpoint=folder / "checkpoint.safetensors", **options)


def _read_text_training(folder: Path) -> object:
    task = made.sentiment_task(made.sentences())
    return rs.train(made.classifier(task), task, 2, 0, checkpoint=folder / "checkpoint.safetensors")


def _read_checkpoint(path: Path) -> object:
    source = open_checkpoint(path)
    for name in source.entries:
        with suppress(Unreadable):
            if isinstance(source, Adapter) and name not in source.replaced:
                source.factors(name)
            else:
                source.tensor(name)
    source.release()
    try:
        found = inspect(path)
    except InputError:
        found = inspect(made.state_dict(), path, heads=2)
    found.to_dataframe()
    return found.write_csv(path.parent / "out" / "table.csv")


def _read_folder(folder: Path) -> object:
    return _read_checkpoint(next(iter(sorted(folder.glob("*.index.json"))), folder))


READERS = (
    Reader(
        "training",
        "a checkpoint of a training",
        lambda: one_file("checkpoint.safetensors", list(made.training_files())[:1]),
        _read_training,
        (
            *made.NAMES,
            b"network.recurrent_weights",
            b"optimizer.0.step",
            b"optimizer.9.exp_avg",
            b"losses",
            b"rng",
            b"PCG64",
        ),
    ),
    Reader(
        "text-training",
        "a checkpoint of a text classifier's training",
        lambda: one_file("checkpoint.safetensors", list(made.training_files())[1:]),
        _read_text_training,
        (*made.NAMES, b"network.readout.bias", b"optimizer.0.step", b"optimizer.9.exp_avg", b"losses", b"settings"),
    ),
    Reader(
        "network",
        "saved networks, RateRNN and GatedRNN",
        lambda: one_file("network.safetensors", made.network_files()),
        _read_network,
        (
            *made.NAMES,
            b"hidden_size",
            b"num_layers",
            b"rng",
            b"dtype",
            b"gain",
            b"initial.rnn.bias_hh_l0",
            b"initial_state",
        ),
    ),
    Reader(
        "safetensors",
        "anybody's state dict as safetensors",
        lambda: one_file("after.safetensors", (made.safetensors(0.1), next(iter(made.network_files())))),
        lambda folder: _read_checkpoint(folder / "after.safetensors"),
        (*made.NAMES, *TENSORS),
    ),
    Reader(
        "torch",
        "anybody's state dict by torch.save",
        lambda: one_file(
            "after.pt", map(made.torch_file, (made.state_dict(0.1), {"epoch": 3, "model": made.state_dict(0.1)}))
        ),
        lambda folder: _read_checkpoint(folder / "after.pt"),
        (*TENSORS, *PICKLE),
    ),
    Reader(
        "shards",
        "a checkpoint in several files with an index",
        lambda: [made.shards(made.save, "safetensors"), made.shards(made.torch_file, "bin")],
        _read_folder,
        (*made.NAMES, *TENSORS, b"weight_map", b"model-1.bin", b"../model-1.bin", b".", b".."),
    ),
    Reader(
        "adapter",
        "a LoRA adapter's folder",
        lambda: [
            made.adapter("safetensors", made.save, alpha_pattern={"k_proj": 8}, target_parameters=["a.b"]),
            made.adapter("bin", made.torch_file, use_rslora=True, fan_in_fan_out=True),
        ],
        _read_folder,
        (
            *made.NAMES,
            *TENSORS,
            b"peft_type",
            b"lora_alpha",
            b"alpha_pattern",
            b"(a+)+$",
            b".*.*",
            b"[",
            b"lora_magnitude_vector",
        ),
    ),
)
