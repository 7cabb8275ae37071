"""The change between two checkpoints truncated to low rank, as the two factors of each matrix (Hu et al. 2021)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rankscope.checkpoints.adapter_folder import check_free, write_folder
from rankscope.checkpoints.factored import FactoredMatrix
from rankscope.checkpoints.model_config import model_types
from rankscope.checkpoints.modules import Kind, Known, Storage, compatible, storages
from rankscope.checkpoints.names import match
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Pair, Selection, Skipped, open_pair, select
from rankscope.checkpoints.ranks import RankRule
from rankscope.checkpoints.source import Unreadable
from rankscope.checkpoints.ties import tied_embeddings, tied_weights
from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for

Progress = Callable[[int, int, str], None]
NO_DIRECTION = "no direction of its change stands out of the noise"
TIED = "the same weight as {!r}; it is extracted by that name, if it is named among the layers"
GROWN = "its vocabulary grew, and an adapter cannot add rows"


@dataclass(frozen=True)
class ExtractedMatrix:
    """One matrix of an adapter: what the command `extract` prints of it."""

    name: str  # key of the tensor, with the number of the expert in a stack
    rank: int
    share: float  # of |dW|^2
    megabytes: float  # 10^6 bytes of its factors
    format: str  # "PEFT", or "rankscope" in a file beside
    reason: str | None  # why not in PEFT's format


class LowRankFactors(Mapping[str, tuple[Tensor, Tensor]]):
    """Name of a matrix -> A (rank, columns) and B (rows, rank), float32, with B @ A = dW truncated to that rank.

    A matrix of a stack of experts has the name of the tensor with ``[expert 3]`` appended.

    Attributes
    ----------
    left_out
        Tensors that changed and are not here, with the reasons.
    """

    def __init__(
        self,
        matrices: Iterable[FactoredMatrix],
        storage: Mapping[str, Storage],
        tensors: Collection[str],
        left_out: Sequence[Skipped],
    ) -> None:
        self._matrices = {one.label: one for one in matrices}
        self._storage = compatible({one.name: storage[one.name] for one in self._matrices.values()})
        self._tensors = tensors  # names of all tensors of the checkpoint
        self.left_out = tuple(left_out)

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        return self._matrices[name].A, self._matrices[name].B

    def __iter__(self) -> Iterator[str]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each matrix."""
        return {name: one.rank for name, one in self._matrices.items()}

    def matrices(self) -> list[ExtractedMatrix]:
        """Return rank, share of the change and format of each matrix."""
        return [
            ExtractedMatrix(
                name=name,
                rank=one.rank,
                share=one.share,
                megabytes=(one.A.nbytes + one.B.nbytes) / 1e6,
                format="rankscope" if self._storage[one.name].kind is Kind.NOT_IN_PEFT else "PEFT",
                reason=self._storage[one.name].reason,
            )
            for name, one in self._matrices.items()
        ]

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the folder of a LoRA adapter, for the PEFT library and `rankscope inspect`, and return it.

        PEFT adds each change at its own rank with a scale of 1. Matrices that PEFT cannot hold are in a file of our own
        beside; `matrices` has the reasons.

        Parameters
        ----------
        overwrite
            Replace the adapter that the folder holds.

        Raises
        ------
        InputError
            If there is no matrix to write, the folder holds an adapter, or it cannot be made or written to.
        """
        check_free(folder, overwrite)
        if not self._matrices:
            raise InputError("after must differ from before in a matrix to be extracted, got none that does")
        return write_folder(Path(folder), list(self._matrices.values()), self._storage, self._tensors)


def low_rank_factors(
    before: CheckpointLike,
    after: CheckpointLike,
    rank: int | str = "auto",
    layers: Iterable[str] | None = None,
    *,
    transposed: Iterable[str] = (),
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> LowRankFactors:
    """Return the change of each matrix truncated to a rank, as two factors.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`.
    rank
        Number of directions to keep of each matrix; "energy:0.99" for as many as hold that share of the squared norm;
        "auto" for those that stand out of the noise, or the rank for 99 % where the change has no flat bulk of noise.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default every matrix that changed. An embedding
        is extracted only if its key is here.
    transposed
        Keys or patterns of the weights of transformers' `Conv1D`, (in, out), if neither a module nor the `config.json`
        beside a file tells which they are.
    key, prefix, rename
        State dict to take, and changes of names before they are matched, as in `compare`.
    on_progress
        Gets (done, total, name) before each matrix.

    Raises
    ------
    InputError
        If `rank` is none of these, a layer is unknown or cannot be read, or one of the two is no checkpoint.
    """
    rule = RankRule.parse(rank)
    if isinstance(transposed, str):
        raise InputError(f"transposed must be a list of patterns, got the text {transposed!r}; write [{transposed!r}]")
    patterns = tuple(transposed)
    pair = open_pair(before, after, prefix, rename, key)
    selected = select(pair, layers)
    module = next((one for one in (before, after) if isinstance(one, nn.Module)), None)
    names = list(dict.fromkeys(one.before for one in selected.matrices))
    source = pair.before or pair.after
    partners = {old: new for old, new in match(source.entries, pair.after.entries, pair.renaming).pairs if old}
    ties = tied_weights(pair, names, partners)
    known = Known(module, tied_embeddings(pair, names, ties), model_types(before) | model_types(after), patterns)
    storage = storages(names, source.entries, known)
    skipped = list(selected.skipped)
    skipped += [Skipped(name, TIED.format(other)) for name, other in ties.items() if other not in names]
    selected = selected._replace(matrices=[one for one in selected.matrices if one.before not in ties])
    matrices = list(_factored(pair, selected, rule, layers is not None, skipped, on_progress))
    left_out = [one for one in skipped if one.reason == NO_DIRECTION or _changed(pair, one.name, partners)]
    pair.release()
    return LowRankFactors(matrices, storage, tuple(source.entries), left_out)


def _factored(
    pair: Pair,
    selected: Selection,
    rule: RankRule,
    named: bool,
    skipped: list[Skipped],
    on_progress: Progress | None,
) -> Iterator[FactoredMatrix]:
    """Yield the factors of the matrices that changed; add the others that did to `skipped`."""
    for done, names in enumerate(selected.matrices):
        if on_progress is not None:
            on_progress(done, len(selected.matrices), names.label)
        if names.rows is not None:
            skipped.append(Skipped(names.label, GROWN))
            continue
        try:
            change = pair.change(names)
        except Unreadable as error:
            if named:
                raise InputError(f"layers must not have {names.before!r}: {error}") from error
            skipped.append(Skipped(names.label, str(error)))
            continue
        if not change.norm:
            continue
        with threads_for(min(change.shape)):
            U, s, Vt = rule.triplets(change)
        if not len(s):
            skipped.append(Skipped(names.label, NO_DIRECTION))
            continue
        # Split evenly, neither factor is so small that a half-precision copy would lose it.
        root = s.sqrt()
        yield FactoredMatrix(
            name=names.before,
            module_name=max(names.after, names.before, key=len),
            expert=names.expert,
            shape=pair.after.entries[names.after].shape,
            A=(root[:, None] * Vt).float().contiguous(),
            B=(U * root).float().contiguous(),
            share=min(1.0, float(s.double().square().sum()) / change.norm**2),
        )


def _changed(pair: Pair, name: str, partners: Mapping[str, str | None]) -> bool:
    """Return whether a tensor that was left out differs; True where that cannot be told."""
    partner = partners.get(name)
    if pair.before is None or partner is None or name not in pair.before.entries:
        return True
    try:
        first, second = pair.before.tensor(name), pair.after.tensor(partner)
    except (Unreadable, KeyError):
        return True
    return first.shape != second.shape or not torch.equal(first, second.to(first.dtype))
