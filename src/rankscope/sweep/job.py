"""`Job`: the description of one trained and measured network.

A job is data: the same object in Python, in a YAML file and in the result it produced. Two jobs with equal canonical
JSON have the same result, so the digest of that JSON names the folder of the result. It contains everything that
determines the networks (`rankscope.sweep.identity`). The measurements are not part of it: they can be added later
without training again.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field, field_validator
from torch import nn

from rankscope import measurements as measuring
from rankscope.description import Description
from rankscope.errors import InputError
from rankscope.measurements import TrainedNetwork
from rankscope.networks import Network, check_spec, make_network, save_networks
from rankscope.networks.protocol import hidden_size_of, with_weights
from rankscope.networks.use import collected_warnings, issue
from rankscope.sweep.axes import short_name
from rankscope.sweep.identity import canonical_json, describe_network, describe_task, describe_training, digest_of
from rankscope.sweep.result_file import MEASUREMENTS, NETWORK, WARNINGS, write_result
from rankscope.sweep.trial_step import run_one_step, user_errors
from rankscope.tasks import OPTIONAL_TASKS, TASKS, Task, make
from rankscope.training import History, TrainingConfig, train
from rankscope.user_code import check_source, is_reference, load_user_code
from rankscope.validation import choice, integer

LARGEST_JSON = 1_000_000
Progress = Callable[[int, int, float], None]
"""progress(done, total, loss), called after every epoch."""

Label = bool | int | float | str


class Job(Description):
    """One network to train and measure.

    Parameters
    ----------
    task
        Name of a task ("flipflop"), a mapping of "name" and its parameters, a class of your own as "file.py:Class" or
        "package.module:Class", or a task.
    network
        "kind" ("rate", "rnn", "gru", "lstm" or "file.py:function") and its options, or the kind alone; the default kind
        is "rate".
    training
        A `TrainingConfig`, or its fields.
    measurements
        Names of measurements; None are those that `rankscope.measurements` makes by default.
    seed
        Source of all randomness.
    labels
        Numbers, words and booleans by name that become coordinates of the result, for example {"sample": 3}.

    Raises
    ------
    InputError
        If a field is unknown or has an impossible value.
    """

    task: Any
    network: dict[str, Any] = Field(default_factory=lambda: {"kind": "rate"})
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    measurements: tuple[str, ...] | None = None
    seed: int = 0
    labels: dict[str, Label] = Field(default_factory=dict)

    if TYPE_CHECKING:  # mappings and names are converted

        def __init__(self, **fields: Any) -> None: ...

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping):
            if "recorded" in value and "name" not in value:
                value = {"name": "recorded", "file": value["recorded"], **value}
                del value["recorded"]
            if not isinstance(value.get("name"), str):
                raise InputError(f"task must be a mapping with a name, got {dict(value)!r:.200}")
            if not is_reference(value["name"]):
                choice("task", value["name"], TASKS | OPTIONAL_TASKS)
            return dict(value)
        if isinstance(value, type) or not isinstance(value, Task):
            raise InputError(f"task must be a name, a mapping or have a method sample(batch_size, rng), got {value!r}")
        return value

    @field_validator("network", mode="before")
    @classmethod
    def _network(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            raise InputError(
                f"network must be a kind such as 'gru' or a mapping such as {{'kind': 'rate', 'gain': 0.9}}, got "
                f"{value!r:.200}"
            )
        spec = {"kind": "rate", **value}
        source = spec.pop("source", None) if is_reference(spec["kind"]) else None
        check_spec(spec)
        if "hidden_size" in spec:
            integer("hidden_size", spec["hidden_size"], minimum=1)
        if source is not None:
            check_source("network kind", spec["kind"], load_user_code("network kind", spec["kind"]), source)
        return spec

    @field_validator("training", mode="before")
    @classmethod
    def _training(cls, value: Any) -> Any:
        return TrainingConfig(**value) if isinstance(value, Mapping) else value

    @field_validator("measurements", mode="before")
    @classmethod
    def _measurements(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise InputError(f"measurements must be a list of names, got the text {value!r}; write [{value!r}]")
        return value

    @field_validator("seed", mode="before")
    @classmethod
    def _seed(cls, value: Any) -> Any:
        return integer("seed", value, minimum=0)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Everything that determines the networks, as plain values in canonical form."""
        return {
            "task": describe_task(self.task),
            "network": describe_network(self.network),
            "training": describe_training(self.training),
            "seed": self.seed,
            "labels": self.labels,
        }

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical JSON."""
        return digest_of(self.description)

    def with_seed(self, seed: int) -> Job:
        """Return this job with another seed."""
        copied = self.model_copy(update={"seed": integer("seed", seed, minimum=0)})
        for cached in ("description", "digest"):  # which the copy holds too
            copied.__dict__.pop(cached, None)
        return copied

    def to_json(self) -> str:
        """Return the canonical JSON, with the measurements if they are given."""
        wanted = {} if self.measurements is None else {"measurements": list(self.measurements)}
        return canonical_json(self.description | wanted)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` described.

        Raises
        ------
        InputError
            If the text does not describe a job.
        """
        if len(text) > LARGEST_JSON:
            raise InputError(f"a job must have at most {LARGEST_JSON} characters of JSON, got {len(text)}")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"a job must be JSON, got {text!r:.100}: {error}") from error
        if not isinstance(fields, dict):
            raise InputError(f"a job must be a JSON object, got {text!r:.100}")
        return cls(**fields)

    def _repr_html_(self) -> str:
        from rankscope.sweep.display import job_html

        return job_html(self)

    def make_task(self) -> Any:
        """Return the task.

        Raises
        ------
        InputError
            If it cannot be made here, for example because an optional package is missing.
        """
        return make(self.task)

    def check(self, step: bool = False) -> None:
        """Build task and network once.

        Parameters
        ----------
        step
            Also draw a batch and train for one step.

        Raises
        ------
        InputError
            If the job cannot be run here as described.
        """
        with user_errors(f"task {self.task_name} with network {self.network['kind']}"):
            task = self.make_task()
            network = self.initial_network(task)
            self.wanted_measurements(network, task)
            if step:
                run_one_step(network, task, self.training, self.random_streams()[1])

    def initial_network(self, task: Task | None = None) -> Network:
        """Return the network before training, as `run` draws it."""
        weights, _ = self.random_streams()
        return make_network(self.network, self.make_task() if task is None else task, weights)

    def random_streams(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Return the random streams of the weights and of the training, at their beginning."""
        weights, training = np.random.SeedSequence(self.seed).spawn(2)
        return np.random.default_rng(weights), np.random.default_rng(training)

    def wanted_measurements(self, network: Network, task: Task) -> tuple[str, ...]:
        """Return the measurements of this job, those by default included."""
        return measuring.chosen(
            self.measurements, network, task, self.training.matrices, along=bool(self.training.kept_epochs)
        )

    def run(self, progress: Progress | None = None, checkpoint: str | os.PathLike[str] | None = None) -> Done:
        """Train the network and measure it.

        Parameters
        ----------
        progress, checkpoint
            As in `train`; an interrupted job continues from the checkpoint, with identical results.

        Raises
        ------
        InputError
            If the job cannot be run as described.
        """
        task = self.make_task()
        network = self.initial_network(task)
        names = self.wanted_measurements(network, task)
        before = copy.deepcopy(network)
        _, rng = self.random_streams()
        config = self.training
        with collected_warnings() as warned:
            history = train(network, task, config.epochs, rng, config=config, progress=progress, checkpoint=checkpoint)
            kept = {epoch: with_weights(network, weights) for epoch, weights in history.kept.items()}
            trained = TrainedNetwork(before, network, task, history, config.loss, config.matrices, kept)
            measured = measuring.measure(trained, names, self.seed)
        for text in warned:
            issue(text)
        measured = measured.assign_attrs({WARNINGS: warned} if warned else {})
        return Done(self, before, network, history, self.labelled(measured, network), names, kept)

    def measure(
        self,
        before: Network,
        after: Network,
        history: xr.Dataset,
        names: tuple[str, ...],
        kept: Mapping[int, Network] | None = None,
    ) -> xr.Dataset:
        """Return further measurements of a network that was trained earlier.

        Parameters
        ----------
        before, after, kept
            The network before and after training, and after the epochs whose copies were kept.
        history
            The stored measurements, which contain the record of the training.
        names
            The measurements to make.

        Raises
        ------
        InputError
            If a measurement is unknown or does not apply.
        """
        task, config = self.make_task(), self.training
        trained = TrainedNetwork(before, after, task, history, config.loss, config.matrices, kept or {})
        return self.labelled(measuring.measure(trained, names, self.seed), after)

    def labelled(self, measured: xr.Dataset, network: Network) -> xr.Dataset:
        """Return measurements with the coordinates of this job: task, kind, gain, hidden_size, seed and its labels."""
        spec = self.description["network"]
        gain = {"gain": float(spec["gain"])} if spec.get("gain") is not None else {}
        coordinates = {
            "task": self.task_name,
            "kind": short_name(spec["kind"]),
            **gain,
            "hidden_size": hidden_size_of(network),
            "seed": self.seed,
            **self.labels,
        }
        return measured.assign_coords(coordinates)

    @property
    def task_name(self) -> str:
        """The name of the task; of a class of your own, its name without the file."""
        return short_name(self.description["task"]["name"])


@dataclass(frozen=True, eq=False)
class Done:
    """A finished job.

    Attributes
    ----------
    job
        The job.
    before, after
        The network before and after training.
    history
        The record of the training.
    measurements
        Everything measured.
    names
        Names of the measurements.
    kept
        Number of epochs -> the network after them, for those in `training.kept_epochs`.
    """

    job: Job
    before: Network
    after: Network
    history: History
    measurements: xr.Dataset
    names: tuple[str, ...]
    kept: Mapping[int, nn.Module] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from rankscope.sweep.display import done_html

        return done_html(self)

    def save(self, folder: str | os.PathLike[str], keep_weights: bool = True) -> list[Path]:
        """Write the networks to FOLDER/network.safetensors and the measurements to FOLDER/measurements.safetensors.

        Returns
        -------
        The paths of the files.

        Raises
        ------
        InputError
            If the folder cannot be written to.
        OSError
            If the disk is full.
        """
        network, measurements = Path(folder) / NETWORK, Path(folder) / MEASUREMENTS
        if keep_weights:
            assert isinstance(self.before, nn.Module)
            assert isinstance(self.after, nn.Module)
            metadata = {"job": self.job.to_json(), "digest": self.job.digest}
            save_networks(network, self.before, self.after, metadata, self.job.training.matrices, self.kept)
        write_result(measurements, self.measurements, self.job, self.names, keep_weights)
        return [network, measurements] if keep_weights else [measurements]
