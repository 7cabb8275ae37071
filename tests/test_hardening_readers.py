"""Every reader returns or raises InputError on some mutated inputs. `hardening/fuzz.py` has more."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HARDENING = Path(__file__).parents[1] / "hardening"
sys.path.insert(0, str(HARDENING))
from fuzz_mutations import mutated  # noqa: E402
from fuzz_workers import write_bundle  # noqa: E402
from reader import Reader, attempt  # noqa: E402
from readers import READERS  # noqa: E402

sys.path.remove(str(HARDENING))

# Numbers of inputs that take about as long for every reader.
INPUTS = dict.fromkeys(("archives", "requests", "job", "run", "shards", "torch", "treebank"), 30)
INPUTS |= dict.fromkeys(("distributed", "torch-objects", "torchscript", "hdf5"), 30)
INPUTS |= dict.fromkeys(("adapter", "own-factors", "safetensors", "sentences", "sweep", "training"), 50)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(READERS))
def test_a_reader_returns_or_refuses(name, tmp_path):
    reader = READERS[name]
    rng = random.Random(f"{name} in the tests")
    seeds = reader.seeds()
    outcomes = []
    # In a thread, as the browser of other tests leaves an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        for number in range(INPUTS.get(name, 100)):
            bundle = seeds[number] if number < len(seeds) else mutated(rng.choice(seeds), rng, reader.words)
            write_bundle(bundle, tmp_path / "input")
            outcomes.append(thread.submit(attempt, reader, tmp_path / "input").result())
    # The seeds are valid, and many mutations are refused; damaged locks and records of failures are not.
    assert outcomes[0] == ""
    assert sum(map(bool, outcomes)) > len(outcomes) / 20


def test_other_exceptions_are_raised(tmp_path):
    def read(folder):
        raise KeyError("forgotten")

    with pytest.raises(KeyError, match="forgotten"):
        attempt(Reader("wrong", "", list, read), tmp_path)


def test_changes_are_repeatable_and_of_every_size():
    (bundle, *_) = READERS["glove"].seeds()
    changed = [mutated(bundle, random.Random(seed))["glove.txt"] for seed in range(40)]
    assert changed == [mutated(bundle, random.Random(seed))["glove.txt"] for seed in range(40)]
    assert len(set(changed)) > 35
    assert min(map(len, changed)) < len(bundle["glove.txt"]) < max(map(len, changed))
