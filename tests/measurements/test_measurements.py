"""Measurements on trained networks: each computed a second, independent way."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import rankscope as rs
from rankscope.measurements import MEASUREMENTS, Measurement, TrainedNetwork, chosen, generator_of, measure
from rankscope.measurements.score import fall_epoch, unexplained, wrong
from rankscope.networks.protocol import with_weights
from rankscope.tasks import FixedPoint, FlipFlop
from rankscope.training import squared_loss

TASK = FlipFlop(duration=12.0)


class Plain(nn.Module):
    """A network of a user, without any method of ours."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(2, 6, batch_first=True)
        self.readout = nn.Linear(6, 2)

    def forward(self, inputs):
        return self.readout(self.rnn(inputs)[0])


def trained(network, task=TASK, epochs=6, **options):
    """Return a network after a few epochs of a large learning rate."""
    before = network.snapshot() if hasattr(network, "snapshot") else None
    if before is None:
        before = Plain()
        before.load_state_dict(network.state_dict())
    history = rs.train(network, task, epochs, rng=1, batch_size=4, learning_rate=0.02, **options)
    return TrainedNetwork(before, network, task, history)


@pytest.fixture(scope="module")
def rate():
    return trained(rs.RateRNN.initialize(TASK, hidden_size=10, gain=0.9, rng=0))


@pytest.fixture(scope="module")
def gated():
    return trained(rs.GatedRNN.initialize(TASK, kind="lstm", hidden_size=5, rng=0))


def outputs_by_hand(network, W, inputs):
    """Return the outputs of a tanh network of the current convention, step by step in numpy."""
    W_in, W_out = (getattr(network, f"{name}_weights").detach().double().numpy() for name in ("input", "output"))
    u = inputs.double().numpy()
    h, dt, outputs = np.zeros((len(u), len(W))), network.dynamics.dt, []
    for t in range(u.shape[1]):
        h = (1 - dt) * h + dt * (np.tanh(h) @ W.T + u[:, t] @ W_in.T)
        outputs.append(np.tanh(h) @ W_out.T)
    return torch.from_numpy(np.stack(outputs, 1))


def test_learning_follows_the_definitions(rate):
    record = rate.record.copy()
    record["loss"] = ("epoch", [2.0, 1.0, 0.3, 0.09, 0.2, 0.01])
    record["gradient_norm"] = ("epoch", [3.0, 2.0, 1.0, 9.0, 9.0, 9.0])
    found = measure(TrainedNetwork(rate.before, rate.after, TASK, record), ["learning"])
    assert (found.initial_loss, found.convergence_epoch, found.average_gradient) == (2, 3, 2)
    assert found.status == "finished"


def test_truncation_is_that_of_a_simulation_by_hand(rate):
    found = measure(rate, ["truncation"], seed=7)
    trials = TASK.sample(512, generator_of(7, "truncation"))
    W0, W = (network.recurrent_weights.detach().double().numpy() for network in (rate.before, rate.after))
    U, s, Vt = np.linalg.svd(W - W0)
    for rank in (0, 2, 10):
        outputs = outputs_by_hand(rate.after, W0 + (U[:, :rank] * s[:rank]) @ Vt[:rank], trials.inputs)
        expected = squared_loss(outputs, trials.targets.double(), trials.mask.double())
        assert float(found.truncation_loss.sel(rank=rank)) == pytest.approx(float(expected), rel=1e-5)
    assert list(found["rank"]) == list(range(11))


def test_a_change_that_needs_no_initial_weights_survives_their_shuffle():
    one = trained(rs.RateRNN.initialize(TASK, hidden_size=8, gain=0.0, rng=0))
    found = measure(one, ["shuffle"], seed=3)
    trials = TASK.sample(512, generator_of(3, "shuffle"))
    outputs = outputs_by_hand(one.after, one.after.recurrent_weights.detach().double().numpy(), trials.inputs)
    loss = float(squared_loss(outputs, trials.targets.double(), trials.mask.double()))
    assert float(found.shuffled_loss) == pytest.approx(loss / one.history.losses[0], rel=1e-5)


def test_norms_outlier_and_spectra_agree(rate):
    found = measure(rate, ["norms", "outlier", "spectra"])
    s = found.singular_value
    assert float(found.change_norm) == pytest.approx(float(np.sqrt((s.sel(matrix="change") ** 2).sum())))
    assert float(found.trained_norm) == pytest.approx(float(np.sqrt((s.sel(matrix="trained") ** 2).sum())))
    assert float(found.outlier) == pytest.approx(float(found.eigenvalue_real.sel(matrix="trained").max()))


def test_a_measurement_does_not_depend_on_the_others(rate):
    names = ["evaluation", "truncation", "shuffle"]
    together = measure(rate, names, seed=5)
    for name in names:
        alone = measure(rate, [name], seed=5)
        assert alone.identical(together[list(alone.data_vars)])
    assert not measure(rate, ["evaluation"], seed=6).identical(measure(rate, ["evaluation"], seed=5))


def test_a_task_of_one_trial_is_evaluated_on_one_trial():
    task = FixedPoint()
    assert (
        trained(rs.RateRNN.initialize(task, 6, rng=0), task).evaluation_trials(np.random.default_rng(0)).batch_size == 1
    )
    noisy = trained(rs.RateRNN.initialize(task, 6, rng=0, noise_std=0.1), task)
    assert noisy.evaluation_trials(np.random.default_rng(0)).batch_size == 512


def test_trial_is_what_the_network_does_with_the_example(rate):
    found = measure(rate, ["trial"])
    W = rate.after.recurrent_weights.detach().double().numpy()
    np.testing.assert_allclose(
        found.example_output, outputs_by_hand(rate.after, W, TASK.example().inputs)[0], atol=1e-5
    )
    assert found.time[1] == 2 * TASK.dt


def test_gate_spectra_are_those_of_the_blocks(gated):
    found = measure(gated, ["gate_spectra"])
    W = gated.after.rnn.weight_hh_l0.detach().double().numpy()
    block = found.gate_singular_value.sel(weight="weight_hh_l0", matrix="trained", gate="cell")
    np.testing.assert_allclose(block, np.linalg.svd(W[10:15], compute_uv=False))
    whole = found.singular_value.sel(weight="weight_hh_l0", matrix="trained")
    np.testing.assert_allclose(whole, np.linalg.svd(W, compute_uv=False))


def test_the_anatomy_is_that_of_the_change_and_grows_to_it():
    one = trained(rs.GatedRNN.initialize(TASK, kind="gru", hidden_size=6, rng=0), kept_epochs=(2, 6))
    one = replace(one, kept={epoch: with_weights(one.after, state) for epoch, state in one.history.kept.items()})
    found = measure(one, ["anatomy", "anatomy_along", "gate_spectra"])
    block = found.sel(block="rnn.weight_hh_l0[z]")
    np.testing.assert_allclose(
        block.direction_strength, found.gate_singular_value.sel(matrix="change", gate="update")[0], rtol=1e-5
    )
    np.testing.assert_allclose(block.growth_strength[1], block.direction_strength, rtol=1e-5)
    assert (block.half_growth_epoch < 6).any()
    assert block.overlap_null.sel(partner="inputs", side="left", stage="after") == pytest.approx(2 / 6)
    np.testing.assert_allclose(found.activity_share[..., -1], 1)


def test_matrices_with_equal_short_names_have_their_whole_names():
    network = rs.GatedRNN.initialize(TASK, kind="gru", hidden_size=4, rng=0)
    network.other = nn.GRU(4, 4)
    after = copy.deepcopy(network)
    steps = {"other.weight_hh_l0": 0.1, "rnn.weight_hh_l0": 0.2}
    with torch.no_grad():
        for name, step in steps.items():
            after.get_parameter(name).add_(step)
    found = measure(TrainedNetwork(network, after, TASK, xr.Dataset(), matrices=tuple(steps)), ["gate_spectra"])
    assert set(found["weight"].values) == set(steps)
    for name, step in steps.items():
        largest = found.singular_value.sel(weight=name, matrix="change")[0]
        assert float(largest) == pytest.approx(step * 48**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("theirs", "fits"),
    [
        (xr.Dataset({"more": ("rank", np.zeros(11))}, {"rank": np.arange(11)}), True),
        (xr.Dataset({"more": ("rank", np.zeros(11))}, {"rank": np.arange(1, 12)}), False),
        (xr.Dataset({"more": ("rank", np.zeros(3))}), False),
    ],
)
def test_two_measurements_share_a_dimension_only_with_equal_coordinates(rate, monkeypatch, theirs, fits):
    monkeypatch.setitem(MEASUREMENTS, "more", Measurement("more", "a user's", lambda trained, rng: theirs))
    if fits:
        assert measure(rate, ["truncation", "more"]).sizes["rank"] == 11
        return
    with pytest.raises(rs.InputError, match="'more' must have the coordinate of 'truncation' along 'rank'"):
        measure(rate, ["truncation", "more"])


def test_what_applies_is_measured_by_default(rate, gated):
    common = {"learning", "norms", "evaluation", "truncation", "shuffle", "trial"}
    assert set(chosen(None, rate.after, TASK)) == common | {"spectra"}
    assert set(chosen(None, gated.after, TASK)) == common | {"gate_spectra"}
    assert set(chosen(None, Plain(), TASK)) == common
    for one in (rate, gated, trained(Plain())):
        found = measure(one, None)
        assert np.isfinite(found.truncation_loss).all()
        assert all("long_name" in variable.attrs for variable in found.data_vars.values())


@pytest.mark.parametrize("name", list(MEASUREMENTS))
def test_networks_stay_as_they_are(name, rate):
    state = {key: value.clone() for key, value in rate.after.state_dict().items()}
    if MEASUREMENTS[name].applies(rate.after, TASK, rate.names) is None and not MEASUREMENTS[name].along:
        measure(rate, [name])
    assert all(torch.equal(value, rate.after.state_dict()[key]) for key, value in state.items())


def test_what_does_not_apply_says_why(gated, rate):
    with pytest.raises(rs.InputError, match=r"measurements .*'outlier'.* one square weight matrix"):
        chosen(["outlier"], gated.after, TASK)
    with pytest.raises(rs.InputError, match="did you mean 'spectra'"):
        chosen(["spectre"], rate.after, TASK)
    assert chosen(["norms"], rate.after, TASK) == ("learning", "norms")


def test_balanced_accuracy_counts_each_class_the_same():
    targets = nn.functional.one_hot(torch.tensor([[0, 0, 0, 1]]), 2).float()
    outputs = nn.functional.one_hot(torch.tensor([[0, 0, 1, 1]]), 2).float()
    mask = torch.ones_like(targets)
    assert float(wrong(outputs, targets, mask)) == pytest.approx((1 / 3 + 0) / 2)
    mask[:, 2] = 0
    assert float(wrong(outputs, targets, mask)) == 0


def test_explained_variance_of_the_mean_is_zero():
    targets = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[[1.0], [1.0], [0.0]]])
    assert float(unexplained(torch.full((1, 3, 1), 2.0), targets, mask)) == 1
    assert float(unexplained(targets, targets, mask)) == 0


def test_fall_epoch_of_a_step():
    assert fall_epoch(np.r_[np.ones(50), 0.5, np.zeros(50)]) == 50
    assert fall_epoch(np.ones(30)) is None
    assert fall_epoch(np.array([])) is None


def test_the_loss_is_that_of_the_training():
    names = ("evaluation", "truncation", "shuffle")

    def threefold(outputs, targets, mask):
        return 3 * squared_loss(outputs, targets, mask)

    plain, other = (trained(rs.RateRNN.initialize(TASK, 8, rng=0), epochs=2, loss=loss) for loss in (None, threefold))
    other = TrainedNetwork(plain.before, plain.after, TASK, other.history, threefold)
    found, threefold_found = (measure(one, names) for one in (plain, other))
    for name in ("evaluation_loss", "truncation_loss"):
        np.testing.assert_allclose(threefold_found[name], 3 * found[name], rtol=1e-6)
    np.testing.assert_allclose(threefold_found["shuffled_loss"], found["shuffled_loss"], rtol=1e-6)
