"""Reports, made from the results files alone, at any time.

    report.md     tables and links to the pictures
    report.html   the same in one file: pictures inside, tables that sort
    results.csv   one row per result; cells.csv: one per cell of a heat map;
    positions.csv one per position bucket of held-out text
    attention.csv one per full layer, of `effective_attention`
    *.png         the pictures

`write_report` describes one run, `write_comparison` puts several side by side.
Suites need not be known here: tables and pictures follow from the fields of
their lines (`runs.py`).
"""

import os
import pathlib
from collections.abc import Sequence

from hsa_jax.evaluation import sections, tables
from hsa_jax.evaluation.pages import (
  Block,
  Heading,
  render_markdown,
  render_page,
)
from hsa_jax.evaluation.runs import Run, load_run, load_runs


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
  """Makes the report of one run in its own folder.

  Returns:
    The path of the Markdown report.

  Raises:
    ResultsError: if the folder holds no results.
  """
  run = load_run(workdir)
  top = [Heading(1, f"Evaluation of {run.name}"), sections.facts(run.info)]
  return _write_all([run], top, pathlib.Path(workdir))


def write_comparison(
  paths: Sequence[str | os.PathLike], out: str | os.PathLike
) -> pathlib.Path:
  """Makes the report of several runs side by side in `out`.

  Returns:
    The path of the Markdown report.

  Raises:
    ResultsError: if one of the folders holds no results.
  """
  runs = load_runs(paths)
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  top = [Heading(1, "Comparison"), sections.runs_table(runs)]
  return _write_all(runs, top, folder)


def write_pages(
  folder: pathlib.Path, name: str, blocks: Sequence[Block]
) -> pathlib.Path:
  """Writes `NAME.md` and `NAME.html`; returns the path of the former."""
  write_file(folder / f"{name}.html", render_page(blocks, folder))
  return write_file(folder / f"{name}.md", render_markdown(blocks))


def write_file(path: pathlib.Path, text: str) -> pathlib.Path:
  """Replaces the file at once, so that a reader never sees half of it."""
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text, encoding="utf-8")
  temporary.replace(path)
  return path


def _write_all(
  runs: Sequence[Run], top: Sequence[Block], folder: pathlib.Path
) -> pathlib.Path:
  blocks = [
    *top,
    *sections.score_sections(runs, folder),
    *sections.curve_sections(runs, folder),
    *sections.attention_sections(runs, folder),
    *sections.text_sections(runs, folder),
  ]
  for name, text in (
    ("results.csv", tables.results_csv(runs)),
    ("cells.csv", tables.cells_csv(runs)),
    ("positions.csv", tables.positions_csv(runs)),
    ("attention.csv", tables.attention_csv(runs)),
  ):
    if text:
      write_file(folder / name, text)
  return write_pages(folder, "report", blocks)
