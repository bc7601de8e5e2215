# SPDX-License-Identifier: Apache-2.0
"""`her2fast score`: segment and classify, as the method of a run."""

from __future__ import annotations

from functools import partial

from her2fast.scoring import Measurement, Result, Scorer, decide_with
from her2fast.slide_job import Method, Task

#: Of the tiny package.
ROUGH_S_PER_MM2 = 0.5


def area_method(scorer: Scorer) -> Method:
    """The method that decides on areas."""
    return Method(scorer, partial(_score, scorer), ROUGH_S_PER_MM2)


def _score(scorer: Scorer, task: Task) -> tuple[Result, str]:
    source = scorer.provenance(task.slide)
    core, sha256 = None, source.slide["sha256"]
    if not task.again:
        key = source.measurement_key
        core = task.folder.read_measurement(task.name, key, sha256)
    if core is not None:
        return decide_with(Measurement(core, source), task.settings), "decided"
    measurement = scorer.measure(task.slide, on_progress=partial(task.on_stage(), ""))
    task.folder.drop_derived(task.name)
    task.folder.write_measurement(task.name, measurement.core, sha256)
    return decide_with(measurement, task.settings), "measured"
