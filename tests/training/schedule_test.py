import jax
import numpy as np
import pytest

from hsa_jax.config import OptimizerConfig
from hsa_jax.training import schedule

CFG = OptimizerConfig(
  learning_rate=2.0, warmup_steps=4, final_learning_rate_ratio=0.1
)


def test_learning_rate_rises_then_falls_to_the_ratio():
  rate = schedule.learning_rate(CFG, 20)
  values = [float(rate(step)) for step in range(20)]
  np.testing.assert_allclose(values[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
  assert all(a > b for a, b in zip(values[3:], values[4:], strict=False))
  assert values[-1] == pytest.approx(0.2, rel=1e-5)
  assert values[11] == pytest.approx(1.1, rel=1e-5)  # Half of the cosine.


def test_learning_rate_without_warmup_and_past_the_end():
  cfg = OptimizerConfig(learning_rate=1.0, warmup_steps=0)
  rate = schedule.learning_rate(cfg, 10)
  assert 0.9 < float(rate(0)) < 1.0
  assert float(rate(50)) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
  ("step", "expected"), [(0, 1), (9, 1), (10, 4), (24, 4), (25, 8), (99, 8)]
)
def test_value_in_force_is_traceable(step, expected):
  at = jax.jit(lambda s: schedule.value_at(((0, 1), (10, 4), (25, 8)), s))
  assert int(at(step)) == expected


def test_no_schedule_means_no_limit():
  assert schedule.value_at((), 3) is None
