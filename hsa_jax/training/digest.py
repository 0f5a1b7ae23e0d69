"""SHA-256 of arrays, in memory and in the files of a checkpoint.

Orbax keeps no checksum of array data: a flipped bit loads as a wrong weight
without a word. Each array therefore carries its digest in the metadata.
"""

import concurrent.futures
import hashlib
import os
import pathlib
from typing import Any

import jax
import numpy as np
import tensorstore
from jax.experimental import multihost_utils


def digest(array: np.ndarray) -> str:
  """Hexadecimal SHA-256 of dtype, shape and contents."""
  array = np.asarray(array)
  head = f"{array.dtype.name}{list(array.shape)}".encode()
  data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  found = hashlib.sha256(head + b":")
  found.update(data.data)  # as it lies, without a copy
  return found.hexdigest()


def digests(arrays: dict[str, Any]) -> dict[str, str]:
  """Digest of each global array by name.

  Arrays spread over processes are gathered one at a time: host memory holds
  one whole array, never the model.
  """
  return {name: digest(_whole(array)) for name, array in arrays.items()}


def find_damage(folder: pathlib.Path, expected: dict[str, str]) -> list[str]:
  """Reads every array file of a checkpoint item and compares digests.

  With several processes each reads its share of the arrays.

  Args:
    folder: of one item; holds one folder for each array.
    expected: digest by array name.

  Returns:
    One line per damaged array: its name, its file, what is wrong.
  """
  names = sorted(expected)[jax.process_index() :: jax.process_count()]

  def check(name: str) -> str | None:
    return _damage(folder / name, name, expected[name])

  workers = min(8, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    return [line for line in pool.map(check, names) if line]


def _damage(path: pathlib.Path, name: str, expected: str) -> str | None:
  if not path.is_dir():
    return f"array {name}: {path} is missing"
  spec = {
    "driver": "zarr3",
    "kvstore": f"file://{path.absolute()}/",
    "fill_missing_data_reads": False,
  }
  try:
    array = tensorstore.open(spec, open=True).result().read().result()
  except ValueError as error:
    reason = str(error).split(" [")[0].split("\n")[0][:200]
    return f"array {name}: {path} cannot be read ({reason})"
  if digest(array) != expected:
    return f"array {name}: {path} differs from what was saved (SHA-256)"
  return None


def _whole(array: Any) -> np.ndarray:
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
  return np.asarray(array)
