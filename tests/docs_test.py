"""The documentation names what exists, and its code runs."""

import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MAX_README_LINES = 200


def indented_blocks(page: pathlib.Path) -> list[str]:
  """Runs of lines indented by four spaces, with that indent removed."""
  blocks: list[list[str]] = [[]]
  for line in page.read_text().splitlines():
    if line.startswith("    "):
      blocks[-1].append(line[4:])
    elif line.strip() or not blocks[-1]:
      blocks.append([])
    else:
      blocks[-1].append("")
  return ["\n".join(block).strip() for block in blocks if any(block)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
  local = [link for link in links if not link.startswith("http")]
  missing = [link for link in local if not (page.parent / link).exists()]
  assert not missing


def test_make_targets_exist():
  makefile = (ROOT / "Makefile").read_text()
  known = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
  for page in PAGES:
    named = set(
      re.findall(r"\bmake ([a-z]+(?:-[a-z0-9]+)*)$", page.read_text())
    )
    named |= set(re.findall(r"^    make ([a-z0-9-]+)", page.read_text(), re.M))
    named |= set(re.findall(r"`make ([a-z0-9-]+)`", page.read_text()))
    assert named <= known, (page.name, named - known)


def test_commands_exist():
  text = "\n".join(page.read_text() for page in PAGES)
  for name in set(re.findall(r"python -m (hsa_jax\.[a-z_.]*[a-z_])", text)):
    assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name
  for name in set(re.findall(r"python ([a-z_/]+\.py)", text)):
    assert (ROOT / name).exists(), name


def test_files_named_in_tables_exist():
  text = (ROOT / "docs/concepts.md").read_text()
  names = set(re.findall(r"`((?:ops|models|evaluation)/\w+\.py)", text))
  assert len(names) >= 8
  assert not [n for n in names if not (ROOT / "hsa_jax" / n).exists()]


def test_readme_is_short():
  assert (ROOT / "README.md").read_text().count("\n") < MAX_README_LINES


def test_readme_library_example_runs():
  blocks = indented_blocks(ROOT / "README.md")
  (code,) = [block for block in blocks if block.startswith("import jax")]
  scope: dict = {}
  exec(compile(code, "README.md", "exec"), scope)
  assert scope["logits"].shape == (1, 100, 264)
  assert bool(jax.numpy.isfinite(scope["logits"]).all())


def test_readme_overrides_name_config_fields():
  from hsa_jax.config import Config

  text = "\n".join(page.read_text() for page in PAGES)
  paths = re.findall(r"--config\.([a-z_.]+)=", text)
  assert paths
  for path in paths:
    value = Config()
    for part in path.split("."):
      assert hasattr(value, part), path
      value = getattr(value, part)
