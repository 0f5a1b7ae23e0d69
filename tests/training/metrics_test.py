import io
import json
import math

import jax.numpy as jnp

from hsa_jax.training.console import Console, Progress, format_seconds
from hsa_jax.training.hooks import MetricsLog, Moment, Record
from hsa_jax.training.metrics import (
  MetricsWriter,
  read_metrics,
  read_step_metrics,
)
from hsa_jax.training.step import StepMetrics


def record(step, moment=Moment.STEP, loss=1.0):
  values = {"train/loss_nats": loss, "train/answer_accuracy": 0.25}
  return Record(step, values, 0.5, 100, "main", moment)


def test_writer_drops_what_lost_steps_wrote_and_torn_lines(tmp_path):
  writer = MetricsWriter(tmp_path, start_step=0)
  for step in (1, 2, 3, 4):
    writer.write(step, {"x": step / 3})
  writer.close()
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"step": 5, "x"')
  writer = MetricsWriter(tmp_path, start_step=2)
  writer.write(3, {"x": 9.0})
  writer.close()
  records = list(read_metrics(tmp_path))
  assert [r["step"] for r in records] == [1, 2, 3]
  assert records[1]["x"] == 2 / 3 and records[2]["x"] == 9.0


def test_not_finite_is_null_and_the_file_stays_json(tmp_path):
  writer = MetricsWriter(tmp_path, start_step=0)
  writer.write(1, {"x": math.nan})
  writer.close()
  line = (tmp_path / "metrics.jsonl").read_text()
  assert json.loads(line)["x"] is None and "NaN" not in line


def test_answer_metrics_are_absent_without_answers():
  def metrics(answers):
    values = map(jnp.float32, (1.0, 0.0, 0.0, answers, 2.0, 0.1, 0.3, 7.0))
    return read_step_metrics(StepMetrics(*values))

  assert not any("answer" in name for name in metrics(0.0))
  assert metrics(3.0)["train/answer_tokens"] == 3.0


def test_log_averages_speed_between_records(tmp_path):
  writer = MetricsWriter(tmp_path, start_step=0)
  log = MetricsLog(writer, every=4)
  for step in range(1, 7):
    log.on_metrics(record(step, Moment.END if step == 6 else Moment.STEP))
  log.close()
  records = list(read_metrics(tmp_path))
  assert [r["step"] for r in records] == [4, 6]
  assert all(r["perf/tokens_per_s"] == 200 for r in records)
  assert all(r["perf/step_s"] == 0.5 for r in records)


def progress(stream, **changes):
  numbers = {"start_step": 0, "num_steps": 10, "tokens_done": 0}
  numbers |= {"tokens_total": 1000} | changes
  return Progress(Console(stream=stream), every=5, **numbers)


def test_plain_lines_where_there_is_no_terminal():
  stream = io.StringIO()
  hook = progress(stream)
  for step in range(1, 11):
    hook.on_metrics(record(step))
  hook.close()
  lines = stream.getvalue().splitlines()
  assert len(lines) == 2 and "\r" not in stream.getvalue()
  assert lines[0] == (
    "step 5/10  main  loss 1.000 nats  answers 25.0%  200 tokens/s  ETA 2 s"
  )
  assert lines[1].endswith("ETA 0 s")


def test_a_bar_on_a_terminal():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  hook = progress(stream, start_step=3, tokens_done=300)
  hook.on_metrics(record(4))
  hook.close()
  assert "4/10" in stream.getvalue() and "ETA 3 s" in stream.getvalue()


def test_seconds_for_people():
  texts = [format_seconds(s) for s in (-1, 5.4, 187, 7500, 200_000)]
  assert texts == ["0 s", "5 s", "3:07", "2:05:00", "2 d 7 h"]
