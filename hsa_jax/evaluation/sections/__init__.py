"""The sections of a report: each turns runs into blocks and pictures."""

from hsa_jax.evaluation.sections.attention import attention_sections
from hsa_jax.evaluation.sections.facts import facts, runs_table
from hsa_jax.evaluation.sections.score import score_sections
from hsa_jax.evaluation.sections.text import curve_sections, text_sections

__all__ = [
  "attention_sections",
  "curve_sections",
  "facts",
  "runs_table",
  "score_sections",
  "text_sections",
]
