"""Device mesh, the sharding table, the compilation cache."""

from hsa_jax.parallel.activations import split_rows
from hsa_jax.parallel.cache import enable_compilation_cache
from hsa_jax.parallel.host import (
  keep_freed_memory,
  prepare_host,
  step_compiler_options,
)
from hsa_jax.parallel.mesh import (
  AXES,
  BATCH_AXES,
  READ_AXIS,
  batch_sharding,
  initialize_distributed,
  make_mesh,
  mesh_shape,
  place_batch,
)
from hsa_jax.parallel.sharding import (
  RULES,
  ShardingRow,
  format_sharding_table,
  leaf_name,
  named_leaves,
  partition_spec,
  replicated,
  sharding_table,
  tree_shardings,
)

__all__ = [
  "AXES",
  "BATCH_AXES",
  "READ_AXIS",
  "RULES",
  "ShardingRow",
  "batch_sharding",
  "enable_compilation_cache",
  "format_sharding_table",
  "initialize_distributed",
  "keep_freed_memory",
  "leaf_name",
  "make_mesh",
  "mesh_shape",
  "named_leaves",
  "partition_spec",
  "place_batch",
  "prepare_host",
  "replicated",
  "sharding_table",
  "split_rows",
  "step_compiler_options",
  "tree_shardings",
]
