"""`Description`: the pydantic base class, and only that, of jobs, training configurations and sweeps."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rankscope.errors import InputError
from rankscope.validation import choice


class Description(BaseModel):
    """A frozen pydantic model whose mistakes are `InputError`s.

    Raises
    ------
    InputError
        If a field is unknown (the nearest known one is named), missing, or has an impossible value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    def __init__(self, **fields: Any) -> None:
        names = type(self).model_fields
        for name in fields:
            choice(f"field of {type(self).__name__}", name, names)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(explain(error)) from error


def explain(error: ValidationError) -> str:
    """Return the first mistake that pydantic found, as one line: field, constraint, value."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{where} is missing"
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return str(raised)
    return f"{where}: {first['msg']}, got {first['input']!r:.200}"
