import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from hsa_jax.parallel import enable_compilation_cache


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
  """All runs of a file share their compiled programs, as users' do."""
  old = jax.config.jax_compilation_cache_dir
  compilation_cache.reset_cache()
  enable_compilation_cache(str(tmp_path_factory.mktemp("cache")))
  yield
  jax.config.update("jax_compilation_cache_dir", old)
  compilation_cache.reset_cache()
