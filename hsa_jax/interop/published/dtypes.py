"""The type that a published model computes in."""

from hsa_jax.interop.published.settings import Settings

COMPUTED = ("float32", "bfloat16")


def compute_dtype(settings: Settings) -> str:
  """Of either spelling; float16, whose range is too short, becomes bfloat16."""
  older = settings.raw("torch_dtype", "float32")
  name = settings.raw("dtype", older)
  if name == "float16":
    return "bfloat16"
  if name not in COMPUTED:
    known = ", ".join((*COMPUTED, "float16"))
    settings.refuse("dtype", name, f"must be one of {known}")
    return COMPUTED[0]
  return name
