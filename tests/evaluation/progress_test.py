"""The progress line tells what is done, how fast, and what is left."""

import pytest

from hsa_jax.evaluation import progress


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


def test_line_has_samples_speed_and_time_left(clock):
  bar = progress.Progress(total_tokens=10_000, total_samples=4)
  bar.begin("s_niah text 1K")
  clock[0] += 2
  bar.advance(1_000)
  bar.advance(0, samples=1)
  assert bar.line() == "s_niah text 1K: 1/4 samples, 500 tokens/s, ETA 0:18"


def test_speed_is_that_of_the_last_seconds(clock):
  bar = progress.Progress(total_tokens=10**6, total_samples=2)
  for tokens in [10] * 30 + [5_000] * 30:
    clock[0] += 1
    bar.advance(tokens)
  assert ", 5,000 tokens/s, ETA 2:49" in bar.line()


def test_plain_lines_come_every_few_seconds(clock, capsys):
  bar = progress.Progress(total_tokens=100, total_samples=1, every_s=10)
  for _ in range(25):
    clock[0] += 1
    bar.advance(1)
  assert len(capsys.readouterr().out.splitlines()) == 2


def test_compilation_is_not_counted(clock):
  bar = progress.Progress(total_tokens=100, total_samples=1)
  clock[0] += 1_000
  bar.restart()
  clock[0] += 1
  bar.advance(50)
  assert "50 tokens/s, ETA 0:01" in bar.line()


def test_work_of_an_earlier_run_is_left_out(clock):
  bar = progress.Progress(total_tokens=1_000, total_samples=1)
  bar.skip(800)
  clock[0] += 1
  bar.advance(100)
  assert bar.line().endswith("100 tokens/s, ETA 0:01")


def test_a_stall_does_not_hide_the_speed(clock):
  """The end of a sample comes at once after its last tokens."""
  bar = progress.Progress(total_tokens=10_000, total_samples=2)
  clock[0] += 50
  bar.advance(1_000)
  clock[0] += 0.001
  bar.advance(0, samples=1)
  assert bar.line().endswith(" 20 tokens/s, ETA 7:30")


def test_a_sample_that_takes_long_to_answer_does_not_stop_the_speed(clock):
  """Its end is told long after its last tokens, without any more of them."""
  bar = progress.Progress(total_tokens=10_000, total_samples=2)
  clock[0] += 5
  bar.advance(1_000)
  clock[0] += 45
  bar.advance(0, samples=1)
  assert bar.line().endswith(" 20 tokens/s, ETA 7:30")


def test_speed_recovers_soon_after_a_stall(clock):
  bar = progress.Progress(total_tokens=10**6, total_samples=2)
  clock[0] += 600
  bar.advance(100)
  for _ in range(20):
    clock[0] += 1
    bar.advance(100)
  assert " 100 tokens/s" in bar.line()


def test_no_time_is_told_before_anything_is_read(clock):
  bar = progress.Progress(total_tokens=100, total_samples=1)
  clock[0] += 1
  assert bar.line().endswith("ETA -")
