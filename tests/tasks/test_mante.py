"""The Mante task: the target depends on the relevant evidence only, and inputs have the right statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import Mante

EIGHTHS = np.array([-8, -4, -2, -1, 1, 2, 4, 8]) / 8


@pytest.fixture(params=["ours", "recorded"])
def batch(request, reference):
    if request.param == "ours":
        trials = Mante().sample(640, rng=0)
        return trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy()
    with np.load(reference("traces/mante_adam.npz")) as trace:
        return tuple(np.concatenate(trace[key]) for key in ("inputs", "targets", "mask"))


def check(inputs, targets, mask, *, edges=(6, 46, 56, 96), height=0.5, coherences=EIGHTHS):
    """Compare a batch with what its context and its evidence demand; return contexts, evidence, noise."""
    fixed, shown, delayed, end = edges
    assert inputs.shape[1:] == (end, 4)
    context = inputs[:, fixed, 1].astype(int)
    want = np.zeros((len(inputs), end, 2))
    want[np.arange(len(inputs)), fixed:shown, context] = 1
    np.testing.assert_array_equal(inputs[:, :, :2], want)
    means = inputs[:, fixed:shown, 2:].mean(axis=1)
    evidence = coherences[np.abs(means[..., None] - coherences).argmin(axis=-1)]
    relevant = np.take_along_axis(evidence, context[:, None], axis=1)
    want = np.zeros_like(targets, dtype=float)
    want[:, delayed:, 0] = height * np.sign(relevant)
    np.testing.assert_allclose(targets, want, rtol=1e-6)
    want = np.ones_like(mask)
    want[:, shown:delayed] = 0
    np.testing.assert_array_equal(mask, want)
    noise = inputs[:, :, 2:].copy()
    noise[:, fixed:shown] -= evidence[:, None]
    return context, evidence, noise


def test_context_evidence_answer_and_mask_agree(batch):
    context, evidence, noise = check(*batch)
    n = len(context)
    # contexts and coherences are uniform and independent
    assert abs(context.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    for coherence in EIGHTHS:
        assert abs((evidence == coherence).mean() - 1 / 8) < 4 * np.sqrt(7 / 64 / (2 * n))
    features = np.corrcoef([context, evidence[:, 0], evidence[:, 1]])
    assert np.abs(features[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(n)
    # the noise is there at every step, with the same size, white and independent between the channels
    per_step = noise.std(axis=(0, 2))
    assert np.abs(per_step - 0.05 / np.sqrt(0.5)).max() < 5 * 0.0707 / np.sqrt(2 * 2 * n)
    assert abs(noise.mean()) < 4 * 0.0707 / np.sqrt(noise.size)
    pairs = [(noise[..., 0], noise[..., 1]), (noise[:, 1:], noise[:, :-1]), (noise[1:], noise[:-1])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)


@settings(deadline=None, max_examples=40)
@given(
    dt=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    phases=st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(0, 5), st.integers(1, 8)),
    coherences=st.lists(st.sampled_from([-1.0, -0.4, 0.2, 0.7, 3.0]), min_size=1, max_size=5),
    target=st.sampled_from([0.2, 1.0]),
    seed=st.integers(0, 100),
)
def test_every_mante_task_is_consistent(dt, phases, coherences, target, seed):
    names = ("fixation", "stimulus", "delay", "decision")
    task = Mante(dt=dt, coherences=coherences, target=target, noise=0, **dict(zip(names, phases, strict=True)))
    edges = [round(edge / dt) for edge in np.cumsum(phases)]
    trials = task.sample(6, rng=seed)
    arrays = (trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy())
    _, _, noise = check(*arrays, edges=edges, height=target, coherences=np.array(coherences))
    assert np.abs(noise).max() < 1e-6


@pytest.mark.parametrize(("dt", "noise"), [(0.1, 0.05), (0.5, 0.2), (1.0, 1.0)])
def test_noise_grows_as_the_step_shrinks(dt, noise):
    inputs = Mante(dt=dt, noise=noise, fixation=30).sample(50, rng=0).inputs.numpy()
    assert inputs[:, : int(30 / dt), 2:].std() == pytest.approx(noise / np.sqrt(dt), rel=0.05)


def test_example_by_hand():
    trials = Mante().example()
    context, evidence, noise = check(trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy())
    assert context.tolist() == [0]
    assert evidence.tolist() == [[1, -1]]
    assert trials.targets[0, 56:, 0].tolist() == [0.5] * 40
    assert noise.std() == pytest.approx(0.0707, rel=0.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stimulus": 0}, "stimulus must be a finite number > 0, got 0"),
        ({"decision": 0}, "decision must be a finite number > 0, got 0"),
        ({"fixation": -1}, "fixation must be a finite number >= 0, got -1"),
        ({"delay": -1}, "delay must be a finite number >= 0, got -1"),
        ({"dt": 4}, "dt must be at most 3, so that fixation = 3 lasts one step or more, got 4"),
        ({"noise": -0.1}, r"noise must be a finite number >= 0, got -0\.1"),
        ({"target": 0}, "target must be a finite number > 0, got 0"),
        ({"coherences": ()}, r"coherences must be one or more numbers other than 0, got \(\)"),
        ({"coherences": (0.5, 0)}, r"coherences must be one or more numbers other than 0, got \(0\.5, 0\)"),
        ({"coherences": 0.5}, r"coherences must be a sequence of numbers other than 0, got 0\.5"),
        ({"coherences": (1, "2")}, "each of coherences must be a number, got '2'"),
        ({"coherences": (float("nan"),)}, "each of coherences must be a finite number, got nan"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Mante(**wrong)
