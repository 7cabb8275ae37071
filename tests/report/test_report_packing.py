"""Arrays as text, and fewer of them."""

import json

import numpy as np
import pytest

from rankscope.report.packing import finite_or_none, pack, packed_bytes, thinned, unpack


def test_arrays_come_back_in_single_precision():
    array = np.array([[1.5, np.nan, -2e-30], [np.inf, 0.1, 6000.0]])
    packed = json.loads(json.dumps(pack(array)))
    back = unpack(packed)
    np.testing.assert_array_equal(back, array.astype(np.float32))
    assert packed["shape"] == [2, 3]


def test_too_large_a_number_is_infinite():
    assert unpack(pack([1e300]))[0] == np.inf


def test_the_size_of_nested_parts():
    packed = pack(np.zeros(300))
    assert packed_bytes({"a": [packed, {"b": packed}], "c": "text"}) == 2 * len(packed["data"]) == 3200


@pytest.mark.parametrize("count", [1, 2, 59, 60, 61, 200, 6000])
def test_few_indices_are_kept_more_of_them_early(count):
    kept = thinned(count, 60)
    assert len(kept) <= 60
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert (np.diff(kept) > 0).all()
    if count <= 60:
        assert len(kept) == count
    if count >= 200:
        assert (kept < count / 2).sum() > 0.6 * len(kept)


def test_what_json_cannot_hold_is_none():
    assert [finite_or_none(x) for x in (np.float32(2), np.nan, -np.inf)] == [2.0, None, None]
