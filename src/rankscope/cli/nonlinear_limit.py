"""`rankscope theory --task`: learning of a task in infinitely wide nonlinear networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.cli.output import print_json, print_lines, print_table, progress_bars

if TYPE_CHECKING:
    import xarray as xr

SCALARS = {
    "convergence_epoch": "convergence time (epochs)",
    "change_norm": "|dW|",
    "functional_rank": "functional rank",
}
SINGULAR_VALUES = 6


def predict_task(
    task: str,
    *,
    nodes: int,
    epochs: int,
    repetitions: int,
    out: Path | None,
    compare: int,
    hidden_size: int,
    seed: int,
    as_json: bool,
) -> None:
    """Solve the limit, train networks for comparison, and print or draw both."""
    import xarray as xr

    from rankscope.figures.nonlinear_limit import nonlinear_limit
    from rankscope.figures.saving import figure_paths, save_figure
    from rankscope.tasks import describe
    from rankscope.theory import NonlinearLimit
    from rankscope.validation import integer

    integer("compare", compare, minimum=0)
    integer("hidden_size", hidden_size, minimum=1)
    if out is not None:
        figure_paths(out)
    limit = NonlinearLimit(task, nodes)
    solved = limit.errors(epochs, seed, repetitions=repetitions)
    solved.attrs |= {"task": str(describe(limit.task)["name"]).rpartition(":")[2], "nodes": nodes}
    names = [f"network {sample + 1} of {compare}, N = {hidden_size}" for sample in range(compare)]
    networks: xr.Dataset | None = None
    if names:
        with progress_bars(names) as report:
            trained = [
                limit.simulate(
                    hidden_size,
                    epochs,
                    seed,
                    network_rng=sample,
                    progress=lambda *done, sample=sample: report(sample, *done),
                )
                for sample in range(compare)
            ]
        networks = xr.concat(trained, "sample", join="inner", combine_attrs="drop_conflicts")
    files = [] if out is None else save_figure(nonlinear_limit(solved, networks), out)
    if as_json:
        estimates = {str(name): _curves(solved.sel(estimate=name)) for name in solved["estimate"].values}
        values: dict[str, Any] = solved.attrs | {"epoch": solved["epoch"].values.tolist(), "estimates": estimates}
        if networks is not None:
            samples = [_curves(networks.isel(sample=sample)) for sample in range(compare)]
            values["networks"] = {"hidden_size": hidden_size, "samples": samples}
        print_json(values | {"files": [str(path) for path in files]})
        return
    _print(solved, networks)
    print_lines(*files)


def _print(solved: xr.Dataset, networks: xr.Dataset | None) -> None:
    print_lines(
        f"{solved.attrs['task']} at g = 0 and infinite width, after {solved.sizes['epoch']} epochs, from "
        f"{solved.attrs['nodes']} nodes; errors: one scrambling of the nodes, and twice as many nodes"
    )
    estimates = [_at_the_end(solved.sel(estimate=name)) for name in ("value", "scrambling", "nodes")]
    others = (
        [] if networks is None else [_at_the_end(networks.mean("sample")), _at_the_end(networks.std("sample", ddof=1))]
    )
    table = []
    for name in estimates[0]:
        cells = [_text(row[name]) for row in estimates]
        table.append([name, *cells, *([" ± ".join(_text(row[name]) for row in others)] if others else [])])
    headings = ["", "limit", "scrambling", "nodes"]
    print_table(headings if networks is None else [*headings, f"{networks.sizes['sample']} networks"], table)


def _at_the_end(curves: xr.Dataset) -> dict[str, float]:
    last = curves.isel(epoch=-1)
    found = {text: float(last[name]) for name, text in SCALARS.items()}
    for index in range(1, min(SINGULAR_VALUES, last.sizes["singular_index"]) + 1):
        found[f"s{index}"] = float(last["singular_value"].sel(singular_index=index))
    return found


def _curves(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): _listed(values.values.tolist()) for name, values in dataset.data_vars.items()}


def _listed(values: Any) -> Any:
    if isinstance(values, list):
        return [_listed(value) for value in values]
    return values if math.isfinite(values) else None


def _text(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"
