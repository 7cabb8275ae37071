"""Commands for the theories: theory, learning-rates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, WorkersOption, app
from rankscope.cli.output import print_json, print_lines, print_table, progress_bars
from rankscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@app.command()
def theory(
    gain: Annotated[
        float | None,
        typer.Option(help="Strength g of the random connectivity, below 1. [default: 0.6]", show_default=False),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="The value z_hat that the readout learns. [default: 2]", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Nonlinear networks that learn this task from g = 0, at infinite width; or file.py:Class."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of --task. [default: 250]", show_default=False)] = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Units that stand for infinitely many (--task). [default: 64]", show_default=False),
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(help="Solutions for the error (--task). [default: 3]", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")] = None,
    until: Annotated[
        float | None, typer.Option(help="Last learning time. [default: twice the convergence time]", show_default=False)
    ] = None,
    compare: Annotated[int, typer.Option(help="Number of networks to train for comparison.")] = 0,
    hidden_size: Annotated[int, typer.Option(help="Number of units N of these networks.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of these networks.")] = 0,
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict learning at infinite width: a linear network that learns one number, or a nonlinear one and a task."""
    from rankscope.cli.nonlinear_limit import predict_task
    from rankscope.experiments.prediction import jobs_to_compare, predict, simulate
    from rankscope.figures.saving import figure_paths, save_figure
    from rankscope.figures.theory import theory as draw
    from rankscope.validation import integer, number

    if task is not None:
        _only_with("a linear network, without --task", gain=gain, target=target, until=until, workers=workers)
        predict_task(
            task,
            nodes=64 if nodes is None else nodes,
            epochs=250 if epochs is None else epochs,
            repetitions=3 if repetitions is None else repetitions,
            out=out,
            compare=compare,
            hidden_size=hidden_size,
            seed=seed,
            as_json=as_json,
        )
        return
    _only_with("--task", nodes=nodes, epochs=epochs, repetitions=repetitions)
    gain, target = 0.6 if gain is None else gain, 2.0 if target is None else target
    integer("compare", compare, minimum=0)
    if until is not None:
        number("until", until, above=0)
    if out is not None:
        figure_paths(out)
    predicted = predict(gain, target, until)
    simulated = None
    if compare:
        last = float(predicted["tau"][-1])
        jobs = jobs_to_compare(gain, target, last, compare, hidden_size, seed)
        names = [f"network {sample + 1} of {compare}, N = {hidden_size}" for sample in range(compare)]
        with progress_bars(names) as report:
            simulated = simulate(jobs, workers, report)
    files = [] if out is None else save_figure(draw(predicted, simulated), out)
    if as_json:
        print_json(_as_values(predicted, simulated) | {"files": [str(path) for path in files]})
        return
    _print_table(predicted, simulated)
    print_lines(*files)


@app.command()
def learning_rates(
    out: Annotated[Path, typer.Option(help="Figure to write: .png, .pdf or .svg.")],
    targets: Annotated[str, typer.Option(help="Values of z_hat, separated by commas, one panel each.")] = "0.5,1,2,4",
    points: Annotated[int, typer.Option(help="Gains between 0 and 0.9.")] = 19,
    as_json: JsonFlag = False,
) -> None:
    """Draw the learning rates at which gradient descent settles, overshoots and diverges."""
    import numpy as np

    from rankscope.experiments.linear import RATES
    from rankscope.experiments.prediction import learning_rates as rates_for
    from rankscope.figures.learning_rates import learning_rates as draw
    from rankscope.figures.saving import figure_paths, save_figure
    from rankscope.validation import integer, number

    figure_paths(out)
    gains = np.linspace(0, 0.9, integer("points", points, minimum=2))
    rates = rates_for(gains.tolist(), [number("targets", _as_number(text)) for text in targets.split(",")])
    files = save_figure(draw(rates, RATES), out)
    if as_json:
        values = {str(name): rates[name].values.tolist() for name in (*rates.data_vars, "gain", "target")}
        print_json(values | {"files": [str(path) for path in files]})
        return
    print_lines(*files)


def _only_with(which: str, **options: object) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)} must be given for {which} only")


def _as_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


QUANTITIES = {
    "convergence_time": "convergence time (loss of 5 %)",
    "change_norm": "|dW|",
    "s1": "first singular value of dW",
    "s2": "second singular value of dW",
    "outlier": "outlier eigenvalue of W",
    "shuffled_loss": "loss after shuffle / initial loss",
}


def _print_table(predicted: xr.Dataset, simulated: xr.Dataset | None) -> None:
    rows = {str(name): _at_the_end(predicted.sel(theory=name)) for name in predicted["theory"].values}
    attributes = predicted.attrs
    print_lines(
        f"g = {attributes['gain']:g}, target = {attributes['target']:g}, "
        f"at learning time {float(predicted['tau'][-1]):.4g}; "
        f"gradient descent settles with a learning rate below {attributes['stable_learning_rate']:.3g}"
    )
    table = []
    networks = (
        [] if simulated is None else [_at_the_end(simulated.isel(sample=i)) for i in range(simulated.sizes["sample"])]
    )
    for name, text in QUANTITIES.items():
        cells = [_text(row[name]) for row in rows.values()]
        if networks:
            cells.append(_spread([network[name] for network in networks]))
        table.append([text, *cells])
    print_table(["", *rows, *([] if simulated is None else [f"{simulated.sizes['sample']} networks"])], table)


def _at_the_end(curves: xr.Dataset) -> dict[str, float | None]:
    """Return the scalars at the last learning time; None for those that do not exist."""
    last = curves.isel(tau=-1)
    found = {name: last[name] for name in ("convergence_time", "change_norm", "outlier", "shuffled_loss")}
    found |= {f"s{index}": last["singular_value"].sel(singular_index=index) for index in (1, 2)}
    return {name: _or_none(float(value)) for name, value in found.items()}


def _as_values(predicted: xr.Dataset, simulated: xr.Dataset | None) -> dict[str, Any]:
    theories = {str(name): _curves(predicted.sel(theory=name)) for name in predicted["theory"].values}
    values: dict[str, Any] = dict(predicted.attrs) | {"tau": predicted["tau"].values.tolist(), "theories": theories}
    if simulated is not None:
        values["networks"] = {
            "hidden_size": int(simulated["hidden_size"]),
            "tau": simulated["tau"].values.tolist(),
            "samples": [_curves(simulated.isel(sample=index)) for index in range(simulated.sizes["sample"])],
        }
    return values


def _curves(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): _listed(values.values.tolist()) for name, values in dataset.data_vars.items()}


def _listed(values: Any) -> Any:
    return [_listed(value) for value in values] if isinstance(values, list) else _or_none(values)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _spread(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return _text(there[0] if there else None)
    mean = sum(there) / len(there)
    std = math.sqrt(sum((value - mean) ** 2 for value in there) / (len(there) - 1))
    return f"{mean:.4g} ± {std:.2g}"
