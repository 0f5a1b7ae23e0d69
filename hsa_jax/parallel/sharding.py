"""One table says where every parameter lives on the mesh.

A rule is a regular expression over the parameter's path and the mesh axes of
its *last* dimensions: stacked layers have one more dimension in front, which is
never split. Optimizer moments carry the parameter's path inside theirs, so the
same table places them. An axis that does not divide its dimension is dropped.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hsa_jax.parallel.mesh import BATCH_AXES

Axes = str | tuple[str, ...] | None  # of one dimension
Rule = tuple[str, tuple[Axes, ...]]

RULES: tuple[Rule, ...] = (
  # What a step keeps for the next: means [L N], then states by row of the
  # batch, segment and layer, [B n L N ...] and [B n L p F].
  (r"kept\.fitted", ()),
  (r"kept.*\.memory", (BATCH_AXES, None, None, "tensor", None, None)),
  (r"kept.*\.tails", (BATCH_AXES, None, None, None, "tensor")),
  # Vectors first: norms, biases, slopes, the CLS token.
  (r"(norm|bias|scale|slope|gain|cls|sink)", ()),
  # Filters over time [width F], one per channel.
  (r"taps", (None, "tensor")),
  # Token table [V D] and a separate head [D V].
  (r"embed", ("tensor", "fsdp")),
  (r"output\.kernel", ("fsdp", "tensor")),
  # Back to the stream: [N*H D] and [F D].
  (r"(out|down|o_proj)\.kernel", ("tensor", "fsdp")),
  # Out of the stream: queries, keys, values, gates, landmarks.
  (r"\.kernel", ("fsdp", "tensor")),
)


class ShardingRow(NamedTuple):
  """One parameter of the printed table.

  Attributes:
    name: dotted path.
    shape: global shape.
    dtype: name of the element type.
    spec: mesh axes of each dimension.
    bytes_per_device: of this array.
  """

  name: str
  shape: tuple[int, ...]
  dtype: str
  spec: P
  bytes_per_device: int


def leaf_name(path: tuple[Any, ...]) -> str:
  """A readable dotted name: `blocks.up.kernel`, `opt_state.1.0.count`."""
  text = jax.tree_util.keystr(path).removesuffix(".value")
  text = re.sub(r"\[['\"]?([^\]'\"]*)['\"]?\]", r".\1", text)
  return text.strip(".")


def named_leaves(tree: Any) -> dict[str, Any]:
  """Every leaf of a pytree under its `leaf_name`, in tree order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {leaf_name(path): leaf for path, leaf in leaves}


def partition_spec(
  name: str,
  shape: tuple[int, ...],
  mesh: Mesh,
  *,
  rules: tuple[Rule, ...] = RULES,
) -> P:
  """Where the array `name` lives: the first rule that matches.

  Args:
    name: dotted path of the leaf.
    shape: its global shape.
    mesh: the device mesh.
    rules: the table.

  Raises:
    ValueError: for an array of two or more dimensions that no rule names, so
      that a new parameter is placed by decision and not by accident.
  """
  axes = next(
    (axes for pattern, axes in rules if re.search(pattern, name)), None
  )
  if axes is None:
    if len(shape) >= 2:
      raise ValueError(
        f"no sharding rule matches {name} {shape}; add one to RULES"
      )
    return P()
  if len(shape) < len(axes):
    return P()
  tail = shape[len(shape) - len(axes) :]
  kept = [
    axis if axis and size % _devices(mesh, axis) == 0 else None
    for axis, size in zip(axes, tail, strict=True)
  ]
  return P(*(None,) * (len(shape) - len(axes)), *kept) if any(kept) else P()


def _devices(mesh: Mesh, axes: Axes) -> int:
  names = (axes,) if isinstance(axes, str) else axes or ()
  return math.prod(mesh.shape[name] for name in names)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, P())


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
  """The same pytree with a `NamedSharding` in place of every array.

  Args:
    tree: arrays or `jax.ShapeDtypeStruct`s, such as a training state.
    mesh: the device mesh.
  """

  def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
    return NamedSharding(
      mesh, partition_spec(leaf_name(path), leaf.shape, mesh)
    )

  return jax.tree_util.tree_map_with_path(place, tree)


def sharding_table(tree: Any, mesh: Mesh) -> Iterator[ShardingRow]:
  """One row for each leaf of a (possibly abstract) pytree."""
  for name, leaf in named_leaves(tree).items():
    spec = partition_spec(name, leaf.shape, mesh)
    local = NamedSharding(mesh, spec).shard_shape(leaf.shape)
    size = math.prod(local) * leaf.dtype.itemsize
    yield ShardingRow(name, leaf.shape, leaf.dtype.name, spec, size)


def format_sharding_table(tree: Any, mesh: Mesh) -> str:
  """The table as text, with the bytes per device at the foot."""
  rows = list(sharding_table(tree, mesh))
  width = max([len(row.name) for row in rows] + [9])
  lines = [f"{'parameter':{width}}  {'shape':20} {'axes':28} bytes/device"]
  for row in rows:
    shape = "x".join(map(str, row.shape)) or "scalar"
    axes = ", ".join("-" if a is None else str(a) for a in row.spec)
    lines.append(
      f"{row.name:{width}}  {shape:20} {axes or 'whole':28}"
      f" {row.bytes_per_device:12,}"
    )
  total = sum(row.bytes_per_device for row in rows)
  lines.append(f"{'total':{width}}  {'':20} {'':28} {total:12,}")
  return "\n".join(lines)
