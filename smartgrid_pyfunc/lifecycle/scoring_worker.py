"""The process in which `scoring` loads one version: requests come as lines of JSON, frames as Arrow files.

Started as ``python -I scoring_worker.py FOLDER`` outside the package, so it must import nothing of it: the model's own
copy of the package is the only one it may find.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main(folder: str) -> None:
    """Load the model in `folder`, say so, and answer until the input ends."""
    # What a model prints must not get between our lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(folder)
    except Exception as error:
        tell({"failed": _sentence(error)})
        return
    tell({"loaded": True})
    for line in sys.stdin:
        tell(_answer(model, json.loads(line)))


def _answer(model: Any, message: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from pyarrow import feather

    try:
        frame = feather.read_feather(message["request"])
        began = time.perf_counter()
        found = model.predict(frame, params=message["params"] or None)
        seconds = time.perf_counter() - began
        if not isinstance(found, pd.DataFrame):
            found = pd.DataFrame({"prediction": found})
        feather.write_feather(found.reset_index(drop=True), message["answer"], compression="uncompressed")
    except MlflowException as error:
        return {"failed" if error.error_code == "INTERNAL_ERROR" else "refused": _sentence(error)}
    except Exception as error:  # the caller gets a sentence, not the end of this process
        return {"failed": _sentence(error)}
    return {"seconds": seconds}


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1])
