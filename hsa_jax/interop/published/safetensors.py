"""Tensors of `.safetensors` files, read one at a time.

A file is the length of its header in eight bytes, little endian; the header,
JSON from the name of a tensor to its type, shape and place; the data. A model
of several files has an index beside them. Only headers are read until a tensor
is asked for, and then that tensor alone.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hsa_jax.interop.published.errors import PublishedError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MAX_HEADER = 100_000_000  # bytes; the format's own bound


class Stored(NamedTuple):
  """Where a tensor lies.

  Attributes:
    path: its file.
    kind: its type, as the file calls it.
    shape: its shape.
    start: first byte in the file.
    nbytes: how many.
  """

  path: pathlib.Path
  kind: str
  shape: tuple[int, ...]
  start: int
  nbytes: int


def find_tensors(folder: pathlib.Path) -> dict[str, Stored]:
  """Every tensor of a model by name, from one file or several.

  Raises:
    PublishedError: no such files, or headers and index that contradict each
      other, are cut off, or name types that are not read here.
  """
  if (folder / INDEX).is_file():
    return _find_all(folder)
  if (folder / SINGLE).is_file():
    return read_header(folder / SINGLE)
  raise PublishedError(
    folder,
    [
      f"neither {SINGLE} nor {INDEX} is there: give the folder of a model in"
      " safetensors; others (pytorch_model.bin) must be converted first"
    ],
  )


def read_tensor(
  stored: Stored, rows: tuple[int, int] | None = None
) -> np.ndarray:
  """One tensor in float32, which holds all three types exactly.

  Args:
    stored: which.
    rows: first and last + 1 of the rows to read; None: all.
  """
  kind, shape = jnp.dtype(TYPES[stored.kind]), stored.shape
  start, size = stored.start, math.prod(shape)
  if rows is not None:
    width = math.prod(shape[1:])
    shape = (rows[1] - rows[0], *shape[1:])
    start += rows[0] * width * kind.itemsize
    size = shape[0] * width
  raw = np.fromfile(
    stored.path, np.uint8, count=size * kind.itemsize, offset=start
  )
  return raw.view(kind).reshape(shape).astype(np.float32)


def read_header(path: pathlib.Path) -> dict[str, Stored]:
  """The tensors of one file.

  Raises:
    PublishedError: naming the file and the tensor.
  """
  size = path.stat().st_size
  with path.open("rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
      raise PublishedError(
        path,
        [
          f"{size} bytes that begin with no header of safetensors: fetch the"
          " file again (a pointer of git-lfs is not the file)"
        ],
      )
    text = file.read(length)
  try:
    header = json.loads(text, object_pairs_hook=_unique)
    header.pop("__metadata__", None)
    found = {n: _stored(path, 8 + length, n, e) for n, e in header.items()}
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    if isinstance(error, PublishedError):
      raise
    raise PublishedError(
      path, [f"its header is damaged ({error}): fetch the file again"]
    ) from error
  _check_places(path, size, 8 + length, found)
  return found


def _find_all(folder: pathlib.Path) -> dict[str, Stored]:
  """The tensors of all files of an index, which must say the same."""
  path = folder / INDEX
  try:
    places: dict[str, str] = json.loads(path.read_bytes())["weight_map"]
    names = sorted(set(places.values()))
    strange = [name for name in names if pathlib.Path(name).name != name]
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise PublishedError(
      path, [f"no index of safetensors ({error!r}): fetch the file again"]
    ) from error
  if strange:
    raise PublishedError(path, [f"{n}: must lie beside it" for n in strange])
  absent = [name for name in names if not (folder / name).is_file()]
  if absent:
    raise PublishedError(
      folder, [f"{name}: is missing, and {INDEX} names it" for name in absent]
    )
  found: dict[str, Stored] = {}
  problems = []
  for name in names:
    for tensor, stored in read_header(folder / name).items():
      if places.get(tensor) != name:
        told = places.get(tensor, "nowhere")
        problems.append(f"{tensor}: in {name}, by {INDEX} in {told}")
      found[tensor] = stored
  problems += [
    f"{tensor}: not in {places[tensor]}, where {INDEX} has it"
    for tensor in places
    if tensor not in found
  ]
  if problems:
    raise PublishedError(folder, problems)
  return found


def _stored(path: pathlib.Path, data: int, name: str, entry: Any) -> Stored:
  kind, shape = entry["dtype"], tuple(entry["shape"])
  begin, end = entry["data_offsets"]
  if kind not in TYPES:
    raise PublishedError(
      path,
      [
        f"{name}: of type {kind}; {', '.join(TYPES)} are read here, so take a"
        " release that is not quantised"
      ],
    )
  size = jnp.dtype(TYPES[kind]).itemsize * math.prod(shape)
  if begin < 0 or end - begin != size or any(n < 0 for n in shape):
    raise ValueError(f"{name}: {kind} {shape} in {end - begin} bytes")
  return Stored(path, kind, shape, data + begin, size)


def _check_places(
  path: pathlib.Path, size: int, data: int, found: dict[str, Stored]
) -> None:
  """Tensors must lie one behind the other and fill the file."""
  at = data
  for name, stored in sorted(found.items(), key=lambda item: item[1].start):
    if stored.start != at:
      raise PublishedError(
        path,
        [f"{name}: begins at byte {stored.start}, {at} is the next one free"],
      )
    at = stored.start + stored.nbytes
  if at != size:
    raise PublishedError(
      path,
      [f"{size} bytes, its header tells of {at}: fetch the file again, whole"],
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  names = [name for name, _ in pairs]
  twice = {name for name in names if names.count(name) > 1}
  if twice:
    raise ValueError(f"{', '.join(sorted(twice))} twice")
  return dict(pairs)
