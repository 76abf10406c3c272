"""Training data from files, buckets and databases: readings and hourly load, checked at one gate and reported on.

`load_hourly` and `load_readings` take the ``data`` parameter of the entry points: ``demo``, a CSV or Parquet file, a
glob or a folder, objects in a bucket (``s3://…``) or a table (``postgresql://…``). Every refusal is a
`smartgrid_pyfunc.schema.InputError` that names place, column and first bad row; everything that is tolerated is counted
in the `InputReport`. Rows stay in DuckDB, which spills to disk, or in the database.
"""

from smartgrid_pyfunc.sources.hourly import HourlyLoad, load_hourly
from smartgrid_pyfunc.sources.readings import Readings, load_readings
from smartgrid_pyfunc.sources.report import InputReport

__all__ = ["HourlyLoad", "InputReport", "Readings", "load_hourly", "load_readings"]
