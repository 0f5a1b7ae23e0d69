"""A report as data, and the two ways to write it down."""

from hsa_jax.evaluation.pages.blocks import (
  Block,
  Cell,
  Facts,
  Heading,
  Paragraph,
  Picture,
  Table,
)
from hsa_jax.evaluation.pages.markdown import markdown_table, render_markdown
from hsa_jax.evaluation.pages.page import render_page

__all__ = [
  "Block",
  "Cell",
  "Facts",
  "Heading",
  "Paragraph",
  "Picture",
  "Table",
  "markdown_table",
  "render_markdown",
  "render_page",
]
