"""Start of processes, device mesh, sharding table, compilation cache."""

from hsa_jax.parallel.activations import (
  fill_context,
  split_chunks_evenly,
  split_rows,
  whole_rows,
)
from hsa_jax.parallel.cache import enable_compilation_cache
from hsa_jax.parallel.distributed import Process, start
from hsa_jax.parallel.host import (
  keep_freed_memory,
  prefill_compiler_options,
  prepare_host,
  step_compiler_options,
)
from hsa_jax.parallel.launch import (
  Cluster,
  Launch,
  StartError,
  read_launch,
  require_alone,
)
from hsa_jax.parallel.mesh import (
  AXES,
  BATCH_AXES,
  CONTEXT_AXIS,
  READ_AXIS,
  batch_sharding,
  describe_mesh,
  local_parts,
  local_rows,
  make_mesh,
  mesh_shape,
  num_slices,
  place_batch,
  slice_shape,
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
from hsa_jax.parallel.shared_folder import check_shared

__all__ = [
  "AXES",
  "BATCH_AXES",
  "CONTEXT_AXIS",
  "Cluster",
  "Launch",
  "Process",
  "READ_AXIS",
  "RULES",
  "ShardingRow",
  "StartError",
  "batch_sharding",
  "check_shared",
  "describe_mesh",
  "enable_compilation_cache",
  "fill_context",
  "format_sharding_table",
  "keep_freed_memory",
  "leaf_name",
  "local_parts",
  "local_rows",
  "make_mesh",
  "mesh_shape",
  "named_leaves",
  "num_slices",
  "partition_spec",
  "place_batch",
  "prepare_host",
  "read_launch",
  "replicated",
  "require_alone",
  "sharding_table",
  "slice_shape",
  "split_chunks_evenly",
  "split_rows",
  "start",
  "prefill_compiler_options",
  "step_compiler_options",
  "tree_shardings",
  "whole_rows",
]
