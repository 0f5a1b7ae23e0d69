from hsa_jax.data.progress import Progress


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def test_time_left_counts_what_was_made_now(capsys):
  """8 MB are there already; 1 MB took 4 s, so another takes 4 s."""
  clock = Clock()
  with Progress(10_000_000, clock=clock) as progress:
    progress.kept(8_000_000)
    clock.now = 4.0
    progress.made(1_000_000)
    clock.now = 8.0
    progress.made(1_000_000)
  assert capsys.readouterr().err.splitlines() == [
    "tokenized 8.0 of 10.0 MB",
    "tokenized 9.0 of 10.0 MB, 0.2 MB/s, 4 s left",
    "tokenized 10.0 of 10.0 MB, 0.2 MB/s, 0 s left",
  ]


def test_a_line_per_tenth(capsys):
  with Progress(0, verb="copied", clock=Clock()) as progress:
    progress.expect(1_000)
    for _ in range(1_000):
      progress.made(1)
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 10
  assert lines[-1] == "copied 0.0 of 0.0 MB"
