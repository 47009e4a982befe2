#!/usr/bin/env python3
"""Golden bytes: event records as TensorBoard's own package writes them, for tests/train/tensorboard_test.cpp.

    scripts/make_tensorboard_golden.py     writes tests/fixtures/golden_tensorboard.json

It needs the package tensorboard; the C++ tests only read the file. Records are in hexadecimal digits.
"""

import io
import json
import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FIXTURE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "golden_tensorboard.json"


def record(**fields):
    class Kept(io.BytesIO):
        def close(self):
            pass

    file = Kept()
    RecordWriter(file).write(event_pb2.Event(**fields).SerializeToString())
    return file.getvalue().hex()


def scalars(**values):
    return [summary_pb2.Summary.Value(tag=tag.replace("__", "/"), simple_value=value) for tag, value in values.items()]


HISTOGRAM = summary_pb2.HistogramProto(min=-2.0, max=-2.0, num=3.0, sum=-6.0, sum_squares=12.0, bucket_limit=[-2.0],
                                       bucket=[3.0])
SPREAD = summary_pb2.HistogramProto(min=0.0, max=30.0, num=4.0, sum=32.5, sum_squares=903.25,
                                    bucket_limit=[float(i) for i in range(1, 31)],
                                    bucket=[2.0, 1.0] + [0.0] * 27 + [1.0])
RECORDS = {
    "version": record(wall_time=1763923200.5, file_version="brain.Event:2"),
    "start": record(wall_time=1763923200.5, step=301,
                    session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)),
    "scalars": record(wall_time=1.25, step=10_000_000_000,
                      summary=summary_pb2.Summary(value=scalars(train__loss=3.25, train__lr=6e-4, zero=0.0))),
    "step_zero": record(wall_time=1.25, summary=summary_pb2.Summary(value=scalars(x=-1.0))),
    "histograms": record(wall_time=2.0, step=7, summary=summary_pb2.Summary(value=[
        summary_pb2.Summary.Value(tag="one", histo=HISTOGRAM),
        summary_pb2.Summary.Value(tag="spread", histo=SPREAD),
        summary_pb2.Summary.Value(tag="none", histo=summary_pb2.HistogramProto()),
    ])),
}
FIXTURE.write_text(json.dumps(RECORDS, indent=1) + "\n")
