"""Which tensor becomes which array: the plan of a model, and its execution."""

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from hsa_jax.config import Layer, ModelConfig
from hsa_jax.interop.published.errors import PublishedError
from hsa_jax.interop.published.safetensors import Stored, read_tensor
from hsa_jax.models import LanguageModel
from hsa_jax.models.attention import address_of
from hsa_jax.parallel import named_leaves

Change = Callable[[np.ndarray], np.ndarray]


class Source(NamedTuple):
  """A tensor of the files, or some of its rows.

  Attributes:
    name: of the tensor.
    shape: that the configuration gives it.
    change: makes it an array of ours.
    rows: first and last + 1 of its rows; None: all. Several parameters may have
      parts of one tensor, which together must be all of it.
  """

  name: str
  shape: tuple[int, ...]
  change: Change = lambda tensor: tensor
  rows: tuple[int, int] | None = None


# Our name -> its tensor, or one for each layer of a stack.
Plan = dict[str, Source | tuple[Source, ...]]


class Imported(NamedTuple):
  """A published model in the terms of this package.

  Attributes:
    architecture: as its `config.json` calls it.
    model: the configuration.
    plan: where each parameter comes from.
    train_length: tokens of its context, as published; 0: not told.
    copies: tensors that may be there a second time, by the name of the first;
      must be equal to it.
  """

  architecture: str
  model: ModelConfig
  plan: Plan
  train_length: int
  copies: Mapping[str, str] = MappingProxyType({})


def transposed(tensor: np.ndarray) -> np.ndarray:
  """Their matrices are [out, in], ours [in, out]."""
  return tensor.T


def in_layers(
  stack: str,
  layers: Sequence[Layer],
  sources: Callable[[int, Layer], Mapping[str, Source]],
) -> Plan:
  """The part of a plan that is about the layers of a stack.

  Args:
    stack: its name, `lower_blocks`.
    layers: its layers in order.
    sources: of a layer by number: the tensors of one block by our names.
  """
  rows: dict[str, dict[int, Source]] = {}
  for i, layer in enumerate(layers):
    inside, row = address_of(layers, i)
    for name, source in sources(i, layer).items():
      rows.setdefault(f"{stack}.{inside}{name}", {})[row] = source
  return {
    name: tuple(found[row] for row in range(len(found)))
    for name, found in rows.items()
  }


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
  """Shapes of all parameters of a model by name; no array is made."""
  built: Any = jax.eval_shape(lambda: LanguageModel(model, rngs=nnx.Rngs(0)))
  return {name: leaf.shape for name, leaf in named_leaves(built).items()}


def check_plan(
  imported: Imported, found: Mapping[str, Stored], where: pathlib.Path
) -> None:
  """Every parameter has its tensors, and every row of a tensor one parameter.

  Raises:
    PublishedError: naming all tensors that are missing, left over, or of
      another shape than the configuration says.
  """
  ours, plan = parameter_shapes(imported.model), imported.plan
  assert plan.keys() == ours.keys(), sorted(plan.keys() ^ ours.keys())
  wanted = [source for sources in plan.values() for source in _several(sources)]
  shapes = {source.name: source.shape for source in wanted}
  for name in shapes:
    _check_rows([source for source in wanted if source.name == name])
  problems = [
    f"{name}: is missing; the file is not complete, or the configuration is of"
    " another model"
    for name in shapes
    if name not in found
  ]
  problems += [
    f"{name}: is left over; no part of {imported.architecture} as config.json"
    " describes it"
    for name in found
    if name not in shapes and name not in imported.copies
  ]
  problems += [
    f"{name}: {_text(found[name].shape)} in {found[name].path.name},"
    f" {_text(shape)} by config.json"
    for name, shape in shapes.items()
    if name in found and found[name].shape != shape
  ]
  if not problems:
    problems = [*_unequal(imported.copies, found)]
  if problems:
    raise PublishedError(where, problems)


def _check_rows(parts: Sequence[Source]) -> None:
  """Parts of a tensor lie one behind the other and are all of it."""
  whole = parts[0].shape
  assert all(part.shape == whole for part in parts), parts
  rows = sorted(part.rows or (0, whole[0]) for part in parts)
  ends = [0, *(stop for _, stop in rows)]
  assert [start for start, _ in rows] == ends[:-1], rows
  assert ends[-1] == whole[0], rows


def _unequal(
  copies: Mapping[str, str], found: Mapping[str, Stored]
) -> Iterator[str]:
  for name, first in copies.items():
    if name in found and (
      found[name].shape != found[first].shape
      or not np.array_equal(read_tensor(found[name]), read_tensor(found[first]))
    ):
      yield (
        f"{name}: is not {first}, and config.json says that one is both; set"
        " what ties them to false there if it is a matrix of its own"
      )


def arrays_of(
  imported: Imported, found: Mapping[str, Stored]
) -> Iterator[tuple[str, np.ndarray]]:
  """Our parameters one after the other, float32; a stack at a time in memory.

  Raises:
    PublishedError: for a tensor with numbers that are not finite.
  """
  for name, shape in parameter_shapes(imported.model).items():
    sources = imported.plan[name]
    if isinstance(sources, Source):
      yield name, _array(sources, found, shape)
      continue
    array = np.empty(shape, np.float32)
    for row, source in enumerate(sources):
      array[row] = _array(source, found, shape[1:])
    yield name, array


def tensor_bytes(found: Mapping[str, Stored]) -> int:
  """Bytes of all tensors as they are stored."""
  return sum(stored.nbytes for stored in found.values())


def num_parameters(model: ModelConfig) -> int:
  """Elements of all parameters."""
  return sum(math.prod(shape) for shape in parameter_shapes(model).values())


def _array(
  source: Source, found: Mapping[str, Stored], shape: tuple[int, ...]
) -> np.ndarray:
  stored = found[source.name]
  tensor = read_tensor(stored, source.rows)
  if not np.isfinite(tensor).all():
    raise PublishedError(
      stored.path,
      [
        f"{source.name}: holds numbers that are not finite: fetch the file"
        " again"
      ],
    )
  array = source.change(tensor)
  assert array.shape == shape, (source.name, array.shape, shape)
  return np.ascontiguousarray(array)


def _several(sources: Source | tuple[Source, ...]) -> tuple[Source, ...]:
  return (sources,) if isinstance(sources, Source) else sources


def _text(shape: tuple[int, ...]) -> str:
  return "x".join(map(str, shape)) or "scalar"
