"""Optional dependencies: what `pip install rankscope` leaves out because one command or one format needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankscope.errors import InputError

#: Extra of pyproject.toml -> the modules that it installs for us.
EXTRAS = {
    "cluster": ("distributed",),
    "explore": ("jinja2", "markupsafe", "plotly", "starlette", "uvicorn"),
    "hdf5": ("h5py",),
    "netcdf": ("h5netcdf", "h5py"),
    "neurogym": ("neurogym", "gymnasium"),
    "onnx": ("onnx",),
    "parquet": ("arro3",),
    "populations": ("sklearn", "joblib"),
    "report": ("jinja2", "markupsafe", "plotly"),
    "sentiment": ("arro3", "platformdirs"),
    "zarr": ("zarr",),
}


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turn the failed import of an optional package into one line that names its extra.

        with needs("zarr", "format 'zarr'"):
            import zarr

    Parameters
    ----------
    extra : str
        A key of `EXTRAS`.
    what : str
        What cannot be done without it, the subject of the message.

    Raises
    ------
    InputError
        If one of the extra's packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS[extra]:
            raise
        raise InputError(f"{what} needs {missing}: pip install 'rankscope[{extra}]'") from error
