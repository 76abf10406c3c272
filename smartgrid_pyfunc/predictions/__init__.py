"""Tables of what registered versions predicted: forecasts and flags, each key once, in Parquet files or PostgreSQL.

A place is a folder, with ``load/day=YYYY-MM-DD/*.parquet`` and ``anomaly/day=…/*.parquet`` below it (the day of the
target hour, UTC), or ``postgresql://user@host/database``, with ``?table=`` for another table than the default one.
"""

from smartgrid_pyfunc.predictions.table import read_flags, read_forecasts, write_flags, write_forecasts

__all__ = ["read_flags", "read_forecasts", "write_flags", "write_forecasts"]
