"""The library's errors cross processes whole."""

import pickle

import pytest

from densedepth import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.DataError("a"),
        errors.MissingDataError("b"),
        errors.EmptySplitError("c"),
        errors.BadFrameError("1.jpg", "cut short"),
        errors.CorruptShardError("d"),
        errors.NonFiniteError("e"),
        errors.OutOfMemoryError("f"),
        errors.WeightsError("g"),
        errors.CudaGraphError("h"),
    ],
)
def test_every_error_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert isinstance(again, errors.DepthError)
