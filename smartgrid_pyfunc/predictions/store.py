"""What every store of predictions can do, and which part of them is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd
import pyarrow as pa


@dataclass(frozen=True)
class Part:
    """Which predictions are asked for; None asks for all.

    Attributes
    ----------
    since, until : Timestamp, optional
        UTC: target hours or readings from `since` on, before `until`.
    model, version : str, optional
        Registered name and number.
    """

    since: pd.Timestamp | None = None
    until: pd.Timestamp | None = None
    model: str | None = None
    version: str | None = None


class Store(Protocol):
    """A table of predictions of one kind."""

    def prepare(self) -> None:
        """Make the table if it is missing and raise `InputError` unless it can be written: before the work."""

    def write(self, table: pa.Table) -> int:
        """Add the rows whose keys are not there yet, those of a day and version all or none; return how many."""

    def holds(self, keys: pa.Table) -> bool:
        """Return whether every one of `keys`, sorted and each once, is known to be there."""

    def read(self, part: Part) -> pa.Table:
        """Return the rows asked for, in no order; a key may come more than once."""
