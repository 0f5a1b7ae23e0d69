"""NNX modules, built once and used as plain pytrees."""

from hsa_jax.models.language_model import LanguageModel

__all__ = ["LanguageModel"]
