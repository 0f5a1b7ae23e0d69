"""Names of picture files."""

import re

from hsa_jax.evaluation.runs import Variant


def picture_name(kind: str, *parts: str) -> str:
  """`heat_map_s_niah_text_digits.png`, of characters any file system takes."""
  text = "_".join(part for part in (kind, *parts) if part)
  return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', text)}.png"


def variant_picture(kind: str, variant: Variant) -> str:
  """Name of a picture of one variant; protocols of one task do not collide."""
  return picture_name(kind, *variant)
