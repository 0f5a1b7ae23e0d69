"""Published weights as models of this package."""

from hsa_jax.interop.published.catalog import (
  READERS,
  Published,
  open_published,
)
from hsa_jax.interop.published.errors import PublishedError
from hsa_jax.interop.published.plan import (
  Imported,
  arrays_of,
  num_parameters,
  tensor_bytes,
)

__all__ = [
  "READERS",
  "Imported",
  "Published",
  "PublishedError",
  "arrays_of",
  "num_parameters",
  "open_published",
  "tensor_bytes",
]
