"""Lengths and sample counts as typed on a command line."""

import pytest

from hsa_jax.evaluation import lengths


def test_lengths_are_sorted_and_unique():
  got = lengths.parse_lengths("1M,256, 4k,256")
  assert got == (256, 4096, 1048576)


@pytest.mark.parametrize("text", ["", "4K,", "0", "-1", "1.5K", "4KB", "K"])
def test_bad_lengths_are_named(text):
  with pytest.raises(lengths.FlagError, match="is not a length"):
    lengths.parse_lengths(text)


@pytest.mark.parametrize("text", ["1", "255", "1000", "256K", "3M", "2G"])
def test_format_is_the_inverse(text):
  assert lengths.format_length(lengths.parse_length(text)) == text


def test_samples_by_length():
  counts = lengths.parse_samples("20,256K:10,1M:5")
  got = [lengths.samples_at(counts, n) for n in (1, 262143, 262144, 1 << 22)]
  assert got == [20, 20, 10, 5]


@pytest.mark.parametrize("text", ["", "0", "x", "256K:10", "20,1M:", "20,z:1"])
def test_bad_samples_are_named(text):
  with pytest.raises(lengths.FlagError, match="--samples"):
    lengths.parse_samples(text)
