"""Environments of NeuroGym as tasks: whole trials, exact seeds, weights of periods, pools, and errors."""

import hashlib
import importlib
import json
import pickle
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rankscope as rs
from forking import Program
from rankscope.errors import InputError
from rankscope.tasks import TASKS, NeuroGym, describe, make, steps_per_epoch
from rankscope.tasks.neurogym import PARAMETERS, STEPS, environments, installed, obstacle
from rankscope.tasks.neurogym_environments import session
from rankscope.training import find_loss

needs_neurogym = pytest.mark.skipif(
    not installed(), reason="NeuroGym is not installed: pip install 'rankscope[neurogym]'"
)
# Blocks of trials, delays with a source of their own, a schedule of two environments, a generator of a new kind.
TRICKY = ("HierarchicalReasoning-v0", "ContextDecisionMaking-v0", "yang19.dms-v0", "AnnubesEnv-v0")
VARIABLE = "IntervalDiscrimination-v0"


def arrays(trials):
    return [trials.inputs, trials.targets, trials.mask]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def task_of(environment, **parameters):
    return NeuroGym(environment, **PARAMETERS.get(environment, {}), **parameters)


def session_of(task, count, rng):
    """Return the trials of the environment itself."""
    return session(task.environment, task.dt * task.tau, task.options, count, np.random.default_rng(rng))


@pytest.fixture(scope="module")
def gonogo():
    return NeuroGym("GoNogo-v0")


@pytest.fixture(scope="module")
def variable():
    return NeuroGym(VARIABLE, weights={"decision": 4.0, "fixation": 0.0})


def test_without_neurogym_the_error_names_the_extra(monkeypatch):
    for name in ("neurogym", "neurogym.envs.registration"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not installed()
    with pytest.raises(InputError, match=r"pip install 'rankscope\[neurogym\]'"):
        NeuroGym("GoNogo-v0")
    with pytest.raises(InputError, match="NeuroGym is not installed"):
        make("neurogym", environment="GoNogo-v0")
    assert "neurogym" not in TASKS


@needs_neurogym
def test_the_environments_are_those_of_the_registry():
    every, supervised = environments(), environments("supervised")
    assert set(supervised) == set(STEPS)
    assert {"Bandit-v0", "yang19.go-v0"} <= set(every) - set(supervised)
    assert environments("no such tag") == ()
    assert [name for name in every if name in supervised] == list(supervised)


@needs_neurogym
@pytest.mark.parametrize(
    "name", [name if name in (*TRICKY, "GoNogo-v0") else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]
)
def test_every_supervised_environment_is_a_task(name):
    task = task_of(name)
    trials = task.sample(5, rng=3)
    task.sample(2, rng=4)
    assert same(task.sample(5, rng=np.random.default_rng(3)), trials)
    assert not same(task.sample(5, rng=4), trials)
    assert task.steps == STEPS[name]
    assert trials.inputs.shape == (5, max(task.steps, trials.steps), task.input_size)
    assert trials.targets.shape == trials.mask.shape == (5, trials.steps, task.output_size)
    assert set(trials.mask.unique().tolist()) <= {0.0, 1.0}
    assert (trials.mask.sum((1, 2)) > 0).all()
    if task.loss == "cross_entropy":
        assert torch.equal(trials.targets.sum(-1), trials.mask[..., 0])
        assert set(trials.targets.unique().tolist()) == {0.0, 1.0}
    loss = find_loss(None, task)(torch.zeros_like(trials.targets), trials.targets, trials.mask)
    assert float(loss) == pytest.approx(np.log(task.output_size)) or task.loss == "squared"
    assert set(task.decision_periods) <= set(task.periods)


OTHER_PROCESS = """
import hashlib, os, sys, warnings
import numpy as np
import matplotlib
from rankscope.tasks import NeuroGym
from rankscope.tasks.neurogym import PARAMETERS
NeuroGym.__doc__
np.random.seed(1)
before = dict(os.environ), list(warnings.filters), np.random.get_state()[1].tolist(), sorted(sys.modules)
assert "neurogym" not in sys.modules
NeuroGym("GoNogo-v0").sample(3)
after = dict(os.environ), list(warnings.filters), np.random.get_state()[1].tolist()
new = sorted(set(sys.modules) - set(before[3]))
kept = [f for f in after[1] if f not in before[1]]
assert after[0] == before[0] and after[2] == before[2] and not kept, (after[0], kept)
for name in names:
    trials = NeuroGym(name, **PARAMETERS.get(name, {})).sample(40, rng=7)
    print(hashlib.sha256(trials.inputs.numpy().tobytes() + trials.targets.numpy().tobytes()).hexdigest())
"""


@needs_neurogym
def test_another_process_draws_the_same_bits_and_nothing_global_is_changed(tmp_path):
    program = Program(tmp_path, exec, OTHER_PROCESS, {"names": TRICKY})
    printed, errors = program.communicate()
    ours = [task_of(name).sample(40, rng=7) for name in TRICKY]
    digests = [
        hashlib.sha256(trials.inputs.numpy().tobytes() + trials.targets.numpy().tobytes()).hexdigest()
        for trials in ours
    ]
    assert (program.returncode, errors) == (0, "")
    assert printed.split() == digests


@needs_neurogym
def test_sources_of_randomness_have_streams_of_their_own():
    # NeuroGym gives one seed to all: then the first two periods of a trial, drawn from one law, are alike.
    task = NeuroGym("HierarchicalReasoning-v0")
    trials = session_of(task, 60, 0)
    first, second = (
        np.array([np.subtract(*trial.periods[name][::-1]) for trial in trials]) for name in ("fixation", "fixation2")
    )
    assert (first != second).sum() > 20
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.4
    context = NeuroGym("ContextDecisionMaking-v0")
    starts = np.array([session_of(context, 1, seed)[0] for seed in range(60)], dtype=object)
    delays = np.array([np.subtract(*trial[2]["delay"][::-1]) for trial in starts])
    answers = np.array([trial[1][-1] for trial in starts])
    assert {1, 2} == set(answers)
    # With one stream for both, the delay would tell the answer.
    threshold = np.median(delays)
    assert 0.2 < (answers[delays > threshold] == 1).mean() < 0.8


@needs_neurogym
def test_blocks_and_schedules_move_on_within_a_batch():
    rules = [
        trial.ground_truth[trial.periods["rule_target"][0]]
        for trial in session_of(NeuroGym("HierarchicalReasoning-v0"), 60, 1)
    ]
    assert {1, 2} == set(rules)
    assert 2 <= np.abs(np.diff(rules)).sum() <= 6
    modality = NeuroGym("yang19.dms-v0").sample(8, rng=0).inputs.abs().sum(1)
    which = (modality[:, 17:].sum(1) > modality[:, 1:17].sum(1)).int().tolist()
    assert which == [0, 1] * 4


@needs_neurogym
def test_trials_are_those_of_the_environment(gonogo):
    trials = gonogo.sample(20, rng=0)
    assert gonogo.periods == ("fixation", "stimulus", "delay", "decision") or set(gonogo.periods) >= {"decision"}
    assert gonogo.decision_periods == ("decision",)
    go = trials.targets[:, -1, 1]
    assert 0 < go.sum() < 20
    inputs, targets = torch.zeros(20, 30, 3), torch.zeros(20, 30, 2)
    inputs[:, :20, 0] = 1
    inputs[:, :10, 1], inputs[:, :10, 2] = (1 - go)[:, None], go[:, None]
    targets[:, :20, 0] = 1
    targets[:, 20:, 0], targets[:, 20:, 1] = (1 - go)[:, None], go[:, None]
    assert torch.equal(trials.inputs, inputs)
    assert torch.equal(trials.targets, targets)
    assert (trials.mask == 1).all()
    assert same(gonogo.example(), gonogo.example())
    assert len(gonogo.example()) == 1
    assert gonogo.example().steps == gonogo.steps


@needs_neurogym
def test_continuous_actions_are_taken_as_they_are():
    task = NeuroGym("ReachingDelayResponse-v0")
    assert task.loss == "squared"
    trials = task.sample(10, rng=0)
    for row in range(10):
        inputs, targets, steps = trials.inputs[row], trials.targets[row], int(trials.mask[row, :, 0].sum())
        deciding = inputs[:, 0] == 1
        assert deciding.sum() == 10
        assert torch.equal(targets[deciding][:, 1], inputs[0, 1].expand(10))
        assert (targets[:steps][~deciding[:steps]] == torch.tensor([-1.0, -0.5])).all()
        assert (targets[steps:] == 0).all()


@needs_neurogym
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 6))
@torch.no_grad()
def test_padding_changes_nothing_of_a_trial(variable, seed, batch):
    network = rs.RateRNN.initialize(variable, hidden_size=6, gain=1.0, rng=0)
    trials = variable.sample(batch, rng=seed)
    alone = session_of(variable, batch, seed)
    outputs = network(trials.inputs)
    losses, weights = [], []
    for row, trial in enumerate(alone):
        steps = len(trial.ground_truth)
        own = torch.as_tensor(trial.observations)[None]
        assert torch.equal(trials.inputs[row, :steps], own[0])
        assert not trials.inputs[row, steps:].any()
        assert not trials.mask[row, steps:].any()
        assert not trials.targets[row, steps:].any()
        torch.testing.assert_close(outputs[row : row + 1, :steps], network(own))
        weight = torch.ones(steps)
        weight[slice(*trial.periods["decision"])] = 4
        weight[slice(*trial.periods["fixation"])] = 0
        assert torch.equal(trials.mask[row, :steps], weight[:, None].expand(-1, 3))
        truth = torch.as_tensor(trial.ground_truth)
        losses.append((weight * torch.nn.functional.cross_entropy(network(own)[0], truth, reduction="none")).sum())
        weights.append(weight.sum())
    whole = find_loss(None, variable)(outputs, trials.targets, trials.mask)
    assert float(whole) == pytest.approx(float(sum(losses) / sum(weights)), rel=1e-5)


@needs_neurogym
@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.05, 0.95))
def test_balanced_gives_decisions_their_share(variable, share):
    task = variable.balanced(share)
    counted = task.sample(300, rng=5)
    decided = variable.decisions(300, rng=5).mask
    assert set(decided.unique().tolist()) == {0.0, 1.0}
    assert (decided[..., 0].sum(1) == 6).all()
    assert float(counted.mask[decided > 0].sum() / counted.mask.sum()) == pytest.approx(share, abs=0.01)
    assert set(task.weights) == {"decision"}


@needs_neurogym
def test_weights_can_be_balanced_by_name(variable):
    for share in (0, 1, "half"):
        with pytest.raises(InputError, match="share must be"):
            variable.balanced(share)
    task = make("neurogym", environment=VARIABLE, weights="balanced")
    assert task == NeuroGym(VARIABLE).balanced()
    assert make(describe(task)) == task


@needs_neurogym
def test_an_environment_that_asks_too_early_is_judged_by_the_last_step():
    task = NeuroGym("ToneDetection-v0", pool=5)
    mask = task.decisions(40, rng=0).mask[..., 0]
    assert (mask.sum(1) == 1).all()
    assert (mask[:, task.steps - 1] == 1).all()


def test_steps_are_known_without_neurogym(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurogym", None)
    assert steps_per_epoch({"name": "neurogym", "environment": "GoNogo-v0"}) == 30
    assert steps_per_epoch("flipflop") == 100
    assert steps_per_epoch("sentiment", 64) > 3000


@needs_neurogym
def test_dropped_steps_have_no_target():
    trials = NeuroGym("GoNogo-v0", weights={"delay": 0.0, "stimulus": 0.5}).sample(4, rng=0)
    assert trials.mask[0, :, 0].tolist() == [0.5] * 10 + [0.0] * 10 + [1.0] * 10
    assert not trials.targets[:, 10:20].any()


@needs_neurogym
def test_without_a_decision_all_periods_are_decision_periods():
    task = NeuroGym("OneTwoThreeGo-v0")
    assert task.decision_periods == task.periods
    assert task.balanced().weights == {}
    assert NeuroGym("ToneDetection-v0").balanced().weights == {}


@needs_neurogym
@pytest.mark.parametrize(("dt", "tau", "steps"), [(0.5, 100, 30), (0.2, 100, 75), (0.5, 50, 60), (1.0, 20, 75)])
def test_steps_are_dt_times_tau_milliseconds(dt, tau, steps):
    assert NeuroGym("GoNogo-v0", dt=dt, tau=tau).steps == steps


@needs_neurogym
def test_a_pool_is_drawn_once_and_from_its_own_seed(gonogo):
    # With noise, no two trials of this environment are equal.
    task = NeuroGym("PerceptualDecisionMaking-v0", pool=50)
    padded = session_of(task, 50, 0)
    pool = {trial.observations.astype(np.float32).tobytes() for trial in padded}
    assert len(pool) == 50
    rng = np.random.default_rng(3)
    batches = [task.sample(32, rng=rng) for _ in range(24)]
    drawn = [{row.numpy().tobytes() for row in trials.inputs} for trials in batches]
    assert set.union(*drawn) == pool
    assert len(set(map(frozenset, drawn))) == 24
    fresh = {row.numpy().tobytes() for row in task.fresh().sample(32, rng=3).inputs}
    other = {trial.tobytes() for trial in replace(task, pool_seed=1)._pooled.observations}
    assert not pool & fresh
    assert not pool & other
    again = NeuroGym("PerceptualDecisionMaking-v0", pool=50)
    again.fresh().sample(3)
    assert same(again.sample(32, rng=3), batches[0])
    assert task.fresh().pool == 0
    assert same(task.fresh().sample(4, rng=1), NeuroGym("PerceptualDecisionMaking-v0").sample(4, rng=1))
    batches[0].inputs.fill_(77)
    assert same(task.sample(32, rng=3), again.sample(32, rng=3))


@needs_neurogym
def test_tasks_are_values():
    parameters = {"options": {"sigma": 0.5, "timing": {"delay": (0, 500)}}, "weights": {"decision": 2}, "pool": 30}
    task = NeuroGym("PerceptualDecisionMaking-v0", **parameters)
    task.sample(2, rng=0)
    described = json.loads(json.dumps(task.parameters()))
    assert described["loss"] == "cross_entropy"
    assert make("neurogym", **described) == task
    assert hash(make("neurogym", **described)) == hash(task)
    assert task != replace(task, pool_seed=1)
    copy = pickle.loads(pickle.dumps(task))
    assert copy == task
    assert same(copy.sample(3, rng=1), task.sample(3, rng=1))
    assert len(pickle.dumps(task)) < 2000
    with pytest.raises(InputError, match=r"parameter of neurogym .*'enviroment' \(did you mean 'environment'"):
        make("neurogym", enviroment="GoNogo-v0")


@needs_neurogym
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"environment": "GoNoGo-v0"}, r"did you mean 'GoNogo-v0'"),
        ({"environment": 3}, "environment must be one of"),
        ({"environment": "nowhere:Some-v0"}, "'nowhere:Some-v0' cannot be made"),
        ({"environment": "Bandit-v0"}, "must set a ground truth in every trial, got none"),
        ({"environment": "AnnubesEnv-v0"}, "cannot be made .* options = {}: .*session"),
        ({"environment": "PulseDecisionMaking-v0"}, "dt must be at most 0.1, so that the period 'cue0'"),
        ({"options": {"reward": {}}}, r"option of GoNogo-v0 must be one of .*did you mean 'rewards'"),
        ({"options": {"timing": {"delai": 50}}}, r"timing of GoNogo-v0 must be one of .*did you mean 'delay'"),
        ({"options": {"rewards": {"corect": 1}}}, r"rewards of GoNogo-v0 must be one of .*did you mean 'correct'"),
        ({"environment": "yang19.dms-v0", "options": {"sigm": 1}}, "did you mean 'sigma'"),
        ({"environment": "AnnubesEnv-v0", "options": {"sesion": {}}}, "cannot be made .*sesion"),
        ({"options": {"dt": 10}}, "options must leave dt to the task"),
        ({"options": {"sigma": float("nan")}}, "options must have values that JSON"),
        ({"options": {"sigma": object()}}, "options must have values that JSON"),
        ({"options": ["sigma"]}, "options must be a mapping"),
        ({"weights": {"decison": 1}}, "did you mean 'decision'"),
        ({"weights": {"decision": -1}}, r"weights\['decision'\] must be a finite number >= 0"),
        ({"weights": 2}, "weights must be a mapping"),
        ({"weights": dict.fromkeys(["stimulus", "delay", "decision"], 0)}, "weights must leave some step"),
        ({"loss": "entropy"}, "loss must be one of"),
        ({"environment": "ReachingDelayResponse-v0", "loss": "cross_entropy"}, "loss must be 'squared'"),
        ({"pool": -1}, "pool must be a whole number >= 0"),
        ({"pool_seed": 0.5}, "pool_seed must be"),
        ({"dt": 0}, "dt must be a finite number > 0"),
        ({"tau": -3}, "tau must be a finite number > 0"),
    ],
)
def test_impossible_parameters_are_refused(parameters, message):
    parameters = {"environment": "GoNogo-v0", **parameters}
    with pytest.raises(InputError, match=message):
        NeuroGym(**parameters)


def one_period(environment, name="only", observed=1.0, truth=1):
    environment.add_period(name, duration=500)
    environment.add_ob(observed)
    if truth is not None:
        environment.set_groundtruth(truth)


@pytest.fixture
def registered():
    """Register an environment that is made by a function, for the length of a test."""
    gymnasium = importlib.import_module("gymnasium")
    core, spaces = importlib.import_module("neurogym.core"), importlib.import_module("neurogym.utils.spaces")
    names = []

    def register(shape=(2,), **attributes):
        class Made(core.TrialEnv):
            def __init__(self, dt=100):
                super().__init__(dt=dt)
                self.timing = {"only": 500}
                self.observation_space = spaces.Box(-1, 1, shape=shape, dtype=np.float32)
                self.action_space = spaces.Discrete(2)
                vars(self).update({name: value() for name, value in attributes.items() if name != "draw"})

            def _new_trial(self):
                return attributes.get("draw", one_period)(self) or {}

        name = f"Made{len(names)}-v0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gymnasium.register(id=name, entry_point=Made)
        names.append(name)
        return name

    yield register
    for name in names:
        del gymnasium.registry[name]


@needs_neurogym
def test_an_environment_of_the_users_own(registered, gonogo):
    task = NeuroGym(registered(own=np.random.default_rng, draw=lambda env: one_period(env, observed=env.own.random())))
    assert task.steps == 10
    assert same(task.sample(3, rng=0), task.sample(3, rng=0))
    assert len(task.sample(30, rng=0).inputs[:, 0, 0].unique()) == 30
    gym_own = NeuroGym(registered(draw=lambda env: one_period(env, observed=env.np_random.random())))
    assert same(gym_own.sample(3, rng=0), gym_own.sample(3, rng=0))


@needs_neurogym
def test_periods_are_those_of_the_trial(registered, gonogo):
    def in_turn(env):
        one_period(env, "ab"[env.num_tr % 2])

    trials = NeuroGym(registered(draw=in_turn), weights={"a": 0.0, "b": 2.0}).sample(4, rng=0)
    assert trials.mask[:, 0, 0].tolist() == [0, 2, 0, 2]


@needs_neurogym
def test_obstacles_to_learning_from_examples(registered, gonogo):
    assert obstacle("GoNogo-v0") is None
    assert "must have observations that are vectors" in obstacle(registered(shape=(2, 2)))
    hidden = np.random.default_rng(0)
    unseeded = registered(draw=lambda env: one_period(env, observed=hidden.random()))
    assert "is not an attribute" in obstacle(unseeded)
    assert "must be one that draws trials" in obstacle(registered(draw=lambda env: 1 / 0))
    only_once = registered(draw=lambda env: one_period(env, truth=None if env.num_tr else 1))
    assert "must set a ground truth in every trial" in obstacle(only_once)


@needs_neurogym
def test_targets_outside_the_actions_are_refused(registered):
    for name in ("Reaching1D-v0", "Reaching1DWithSelfDistraction-v0"):
        assert f"'{name}' must have a ground truth within its actions Discrete(3), got 3" in obstacle(
            name, loss="squared"
        )
    negative = registered(draw=lambda env: one_period(env, truth=-1))
    assert "Discrete(2), got -1: it cannot be learned" in obstacle(negative)
    angle = registered(draw=lambda env: one_period(env) or {"ground_truth": 0.7})
    assert "got the number 0.7, which is no choice between actions" in obstacle(angle)
    box = importlib.import_module("neurogym.utils.spaces").Box
    for truth, got in ((3.0, "got 3"), (np.nan, "values such as [nan")):
        space = partial(box, -1, 1, shape=(1,), dtype=np.float32)
        assert got in obstacle(registered(action_space=space, draw=lambda env, x=truth: one_period(env, truth=x)))
