"""Where learning starts from: exact norms, the right variance, and the same draw wherever the paper shares one."""

import numpy as np
import pytest
import torch

from rankscope.errors import InputError
from rankscope.networks import RateRNN, draw_weights
from rankscope.tasks import Cosine, FlipFlop, Mante, Romo

variants = pytest.mark.parametrize(
    "variant", [{}, {"orthogonal": True}, {"input_is_output": True}, {"orthogonal": True, "input_is_output": True}]
)


@variants
@pytest.mark.parametrize("N", [4, 64, 501])
def test_norms_are_exact(variant, N):
    drawn = draw_weights(2, 2, N, 0.9, rng=0, **variant)
    assert drawn.input.shape == (N, 2)
    assert drawn.recurrent.shape == (N, N)
    assert drawn.output.shape == (2, N)
    np.testing.assert_allclose(np.linalg.norm(drawn.input, axis=0), np.sqrt(N), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(drawn.output, axis=1), 1 / np.sqrt(N), rtol=1e-12)


def test_vectors_are_orthogonal_if_asked_for():
    N = 64
    drawn = draw_weights(4, 3, N, 0.9, rng=0, orthogonal=True)
    vectors = np.hstack([drawn.input / np.sqrt(N), drawn.output.T * np.sqrt(N)])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=1e-12)
    plain = draw_weights(4, 3, N, 0.9, rng=0)
    vectors = np.hstack([plain.input / np.sqrt(N), plain.output.T * np.sqrt(N)])
    overlaps = (vectors.T @ vectors)[~np.eye(7, dtype=bool)]
    assert overlaps.std() == pytest.approx(1 / np.sqrt(N), rel=0.4)
    # the orthogonal ones are the Gram-Schmidt vectors of these: the first is the same, the recurrent weights too
    np.testing.assert_allclose(drawn.input[:, 0], plain.input[:, 0])
    np.testing.assert_array_equal(drawn.recurrent, plain.recurrent)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_no_direction_is_favored(orthogonal):
    N, samples = 3, 2000
    rng = np.random.default_rng(0)
    drawn = [draw_weights(1, 2, N, 0, rng, orthogonal=orthogonal) for _ in range(samples)]
    for vectors in (
        np.array([d.input[:, 0] / np.sqrt(N) for d in drawn]),
        np.array([d.output[0] * np.sqrt(N) for d in drawn]),
        np.array([d.output[1] * np.sqrt(N) for d in drawn]),
    ):
        assert np.abs(vectors.mean(axis=0)).max() < 4 / np.sqrt(N * samples)
        np.testing.assert_allclose(vectors.T @ vectors / samples, np.eye(N) / N, atol=4 * 0.3 / np.sqrt(samples))


@pytest.mark.parametrize("orthogonal", [False, True])
def test_read_out_along_the_input(orthogonal):
    drawn = draw_weights(2, 2, 32, 0.4, rng=0, orthogonal=orthogonal, input_is_output=True)
    np.testing.assert_allclose(drawn.output, drawn.input.T / 32, rtol=1e-12)
    assert abs(drawn.input[:, 0] @ drawn.input[:, 1]) < 1e-12 or not orthogonal


@variants
def test_the_same_seed_shares_everything_but_the_strength(variant):
    one, other = (draw_weights(2, 2, 32, gain, rng=5, **variant) for gain in (0.3, 2.1))
    np.testing.assert_array_equal(one.input, other.input)
    np.testing.assert_array_equal(one.output, other.output)
    np.testing.assert_allclose(7 * one.recurrent, other.recurrent, rtol=1e-12)
    silent = draw_weights(2, 2, 32, 0, rng=5, **variant)
    assert not silent.recurrent.any()
    np.testing.assert_array_equal(silent.input, one.input)
    different = draw_weights(2, 2, 32, 0.3, rng=6, **variant)
    assert not np.any(different.recurrent == one.recurrent)
    assert not np.any(different.input == one.input)


def test_a_generator_moves_on():
    rng = np.random.default_rng(5)
    first, second = (draw_weights(2, 1, 16, 0.9, rng) for _ in range(2))
    np.testing.assert_array_equal(first.recurrent, draw_weights(2, 1, 16, 0.9, rng=5).recurrent)
    assert not np.any(first.recurrent == second.recurrent)


def test_recurrent_weights_may_be_shared_on_their_own():
    one, other = (draw_weights(2, 1, 16, gain, rng, recurrent_rng=7) for gain, rng in ((0.5, 0), (1.0, 1)))
    np.testing.assert_allclose(2 * one.recurrent, other.recurrent, rtol=1e-12)
    assert not np.any(one.input == other.input)
    assert not np.any(one.output == other.output)
    np.testing.assert_array_equal(one.input, draw_weights(2, 1, 16, 0.5, rng=0).input)
    # nor do the sizes of the task matter for it
    np.testing.assert_array_equal(draw_weights(4, 3, 16, 0.5, 0, recurrent_rng=7).recurrent, one.recurrent)


@pytest.mark.parametrize("g", [0.3, 0.9, 1.8])
def test_recurrent_weights_are_gaussian_of_variance_g2_over_n(g):
    N = 512
    W0 = draw_weights(2, 2, N, g, rng=1).recurrent
    scaled = W0 * np.sqrt(N) / g
    assert abs(scaled.mean()) < 4 / N
    assert abs(scaled.var() - 1) < 4 * np.sqrt(2) / N
    assert abs((scaled**4).mean() - 3) < 4 * np.sqrt(96) / N
    # independent entries: W0 and its transpose do not correlate
    assert abs((scaled * scaled.T)[np.triu_indices(N, 1)].mean()) < 4 * np.sqrt(2) / N


def test_eigenvalues_fill_the_disc_of_radius_g():
    W0 = draw_weights(2, 2, 512, 1.8, rng=1).recurrent
    distances = np.abs(np.linalg.eigvals(W0))
    assert distances.max() == pytest.approx(1.8, rel=0.06)
    assert np.mean(distances < 0.9) == pytest.approx(1 / 4, abs=0.03)  # uniformly


def test_networks_start_from_these_weights():
    network = RateRNN.initialize(Mante(), hidden_size=32, gain=1.2, rng=3, dtype=torch.float64)
    drawn = draw_weights(4, 1, 32, 1.2, rng=3)
    for name in ("input", "recurrent", "output"):
        weights = getattr(network, f"{name}_weights").detach().numpy()
        np.testing.assert_array_equal(weights, getattr(drawn, name))
    assert network.bias is None
    assert network.initial_state is None
    assert network.dynamics.dt == 0.5
    assert network.dynamics.nonlinearity.name == "tanh"
    assert network.dynamics.readout_nonlinearity is network.dynamics.nonlinearity
    assert network.dynamics.convention == "current"


def test_both_precisions_are_the_same_draw():
    single = RateRNN.initialize(FlipFlop(), hidden_size=16, rng=0)
    double = RateRNN.initialize(FlipFlop(), hidden_size=16, rng=0, dtype=torch.float64)
    for one, other in zip(single.parameters(), double.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert other.dtype == torch.float64
        assert torch.equal(one, other.float())


def test_variants_reach_the_network():
    network = RateRNN.initialize(
        FlipFlop(), 16, 0.9, rng=0, orthogonal=True, input_is_output=True, recurrent_rng=7, noise_std=0.1
    )
    drawn = draw_weights(2, 2, 16, 0.9, rng=0, orthogonal=True, input_is_output=True, recurrent_rng=7)
    np.testing.assert_array_equal(network.recurrent_weights.detach().numpy(), drawn.recurrent.astype(np.float32))
    np.testing.assert_array_equal(network.output_weights.detach().numpy(), drawn.output.astype(np.float32))
    assert network.noise_std == 0.1


def test_the_task_sets_channels_and_time_step():
    network = RateRNN.initialize(Romo(dt=0.25), hidden_size=16, rng=0)
    assert network.input_weights.shape == (16, 1)
    assert network.output_weights.shape == (2, 16)
    assert network.dynamics.dt == 0.25
    assert RateRNN.initialize(Romo(dt=0.25), hidden_size=16, rng=0, dt=1.0).dynamics.dt == 1.0


def test_an_autonomous_network_starts_on_its_input_vector():
    task = Cosine()
    network = RateRNN.initialize(task, 32, 0.4, rng=0, nonlinearity="identity", input_is_output=True)
    assert torch.equal(network.initial_state, network.input_weights[:, 0])
    assert network.initial_state.norm().item() == pytest.approx(np.sqrt(32))
    assert not network.initial_state.requires_grad
    assert network.dynamics.dt == 0.1
    # W_out h[0] = 1: the cosine starts at its peak
    assert (network.output_weights[0] @ network.initial_state).item() == pytest.approx(1, rel=1e-5)
    elsewhere = RateRNN.initialize(task, 32, 0.4, rng=0, initial_state=np.zeros(32, dtype=np.float32))
    assert not elsewhere.initial_state.any()


def test_any_object_that_samples_trials_is_a_task():
    class Homemade:
        def sample(self, batch_size, rng):
            return Mante().sample(batch_size, rng)

    network = RateRNN.initialize(Homemade(), hidden_size=16, rng=0)
    assert network.input_weights.shape == (16, 4)
    assert network.output_weights.shape == (1, 16)
    assert network.dynamics.dt == 0.5
    assert torch.equal(network.input_weights, RateRNN.initialize(Mante(), hidden_size=16, rng=0).input_weights)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a whole number >= 1, got 0"),
        ({"hidden_size": 256.0}, r"hidden_size must be a whole number >= 1, got 256\.0"),
        ({"hidden_size": True}, "hidden_size must be a whole number >= 1, got True"),
        ({"input_size": 0}, "input_size must be a whole number >= 1, got 0"),
        ({"output_size": -1}, "output_size must be a whole number >= 1, got -1"),
        ({"gain": -0.1}, r"gain must be a finite number >= 0, got -0\.1"),
        ({"gain": float("nan")}, "gain must be a finite number >= 0, got nan"),
        ({"gain": float("inf")}, "gain must be a finite number >= 0, got inf"),
        ({"gain": "0.9"}, "gain must be a number >= 0, got '0.9'"),
        ({"rng": -1}, "rng must be a seed .* or a numpy Generator, got -1"),
        ({"rng": 1.5}, r"rng must be a seed .*got 1\.5"),
        ({"recurrent_rng": "seed"}, "recurrent_rng must be a seed .*got 'seed'"),
        ({"orthogonal": True, "hidden_size": 2}, "hidden_size must be at least 3 for 3 orthogonal vectors, got 2"),
        (
            {"input_is_output": True},
            "input_is_output must be False unless .*as many inputs as outputs, got input_size 2 and output_size 1",
        ),
    ],
)
def test_impossible_requests_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        draw_weights(**{"input_size": 2, "output_size": 1, "hidden_size": 8, "gain": 0.9, "rng": 0, **wrong})
    if "output_size" not in wrong and "input_size" not in wrong and not wrong.get("input_is_output"):

        class Task(FlipFlop):
            output_size = 1

        with pytest.raises(InputError, match=message):
            RateRNN.initialize(Task(), **{"hidden_size": 8, "rng": 0, **wrong})


def test_orthogonal_vectors_may_be_as_many_as_there_are_units():
    drawn = draw_weights(2, 1, 3, 0.9, rng=0, orthogonal=True)
    vectors = np.hstack([drawn.input / np.sqrt(3), drawn.output.T * np.sqrt(3)])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    draw_weights(3, 3, 3, 0.9, rng=0, orthogonal=True, input_is_output=True)


@pytest.mark.parametrize("not_a_task", [None, "flipflop", 3])
def test_what_is_no_task_is_refused(not_a_task):
    with pytest.raises(InputError, match=r"task must have a method sample\(batch_size, rng\), got"):
        RateRNN.initialize(not_a_task, hidden_size=8, rng=0)


def test_half_precision_is_refused():
    with pytest.raises(InputError, match=r"input_weights must be float32 or float64, got torch\.float16"):
        RateRNN.initialize(FlipFlop(), hidden_size=8, rng=0, dtype=torch.float16)


def test_a_perturbation_moves_each_weight_and_no_draw():
    def network(**options):
        return RateRNN.initialize(FlipFlop(), hidden_size=16, gain=0.9, rng=3, dtype=torch.float64, **options)

    plain, one, same, other = (
        network(),
        *(network(perturbation=1e-3, perturbation_rng=seed) for seed in (1, 1, 2)),
    )
    for name, weights in plain.named_parameters():
        ratios = one.get_parameter(name) / weights - 1
        assert ratios.std().item() == pytest.approx(1e-3, rel=0.3)
        assert torch.equal(one.get_parameter(name), same.get_parameter(name))
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
    with pytest.raises(InputError, match="perturbation must be"):
        network(perturbation=-1.0)


def test_output_norm_and_rank_of_the_initial_weights():
    usual = draw_weights(1, 2, 30, 0.9, 0)
    other = draw_weights(1, 2, 30, 0.9, 0, output_norm=1.0, initial_rank=3)
    np.testing.assert_allclose(np.linalg.norm(other.output, axis=1), 1)
    np.testing.assert_allclose(other.output, usual.output * np.sqrt(30))
    assert np.linalg.matrix_rank(other.recurrent) == 3
    assert np.linalg.norm(other.recurrent) == pytest.approx(np.linalg.norm(usual.recurrent))
    np.testing.assert_array_equal(draw_weights(1, 2, 30, 0.9, 0, initial_rank=3).input, usual.input)
    assert not draw_weights(1, 2, 30, 0.0, 0, initial_rank=3).recurrent.any()
    for options in ({"output_norm": 0}, {"initial_rank": 31}):
        with pytest.raises(InputError, match=next(iter(options))):
            draw_weights(1, 2, 30, 0.9, 0, **options)
