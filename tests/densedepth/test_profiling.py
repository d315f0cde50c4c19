"""A trace has the steps asked for, once."""

import json

import torch

from densedepth.profiling import STEPS_BEFORE, step_profiler


def test_one_trace_has_the_steps_asked_for_and_is_told_of_when_it_is_written(tmp_path):
    traces = []
    path = tmp_path / "trace.json"
    profiler = step_profiler(2, path, lambda path: traces.append(json.loads(path.read_text())))
    profiler.start()
    for _ in range(3 * (STEPS_BEFORE + 2)):
        torch.ones(3).sum()
        profiler.step()
    profiler.stop()
    (trace,) = traces
    names = {event["name"] for event in trace["traceEvents"]}
    steps = {f"ProfilerStep#{STEPS_BEFORE + n}" for n in range(2)}
    assert {name for name in names if name.startswith("ProfilerStep")} == steps
