"""The rules of the house, read from the source itself."""

import ast
import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from hsa_jax import config as config_lib
from hsa_jax.config import fields
from hsa_jax.models.parameters import count_parameters

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hsa_jax"

# A room imports only from lower floors and from itself.
FLOORS = {
  "types": 0,
  "config": 1,
  "ops": 2,
  "parallel": 2,
  "data": 2,
  "models": 3,
  "memory": 3,
  "inference": 4,
  "training": 5,
  "evaluation": 5,
  "interop": 5,
  "ablation": 6,
  "cli": 7,
}
ENTRY_POINTS = ("train.py", "eval.py")
MAX_FUNCTION_LINES = 80
MAX_FILE_LINES = 400
CONFIG_FILES = sorted((ROOT / "configs").glob("[!_]*.py"))


def sources(*folders: str) -> list[pathlib.Path]:
  """Python files under the folders (all of the project by default)."""
  folders = folders or ("hsa_jax", "tests", "benchmarks", "configs")
  files = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
  return sorted([*files, *(ROOT / name for name in ENTRY_POINTS)])


def parse(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(), str(path))


def room_of(path: pathlib.Path) -> str:
  """`ops` for hsa_jax/ops/select.py, `types` for hsa_jax/types.py."""
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.Module) -> set[str]:
  """Rooms of hsa_jax that a module imports, at any depth of the code."""
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"line {node.lineno}: relative import"
      names += [f"{node.module}.{alias.name}" for alias in node.names]
  parts = [name.split(".") for name in names]
  return {p[1] for p in parts if p[0] == "hsa_jax" and len(p) > 1}


def floor_problems(room: str, imports: set[str]) -> list[str]:
  return [
    f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
    for other in sorted(imports & FLOORS.keys())
    if other != room and FLOORS[other] >= FLOORS[room]
  ]


def test_rooms_import_only_lower_floors():
  problems = []
  for path in sorted(PACKAGE.rglob("*.py")):
    room = room_of(path)
    if room == "__init__":
      continue
    assert room in FLOORS, f"{path} is in no known room"
    found = floor_problems(room, imported_rooms(parse(path)))
    problems += [f"{path.relative_to(ROOT)}: {text}" for text in found]
  assert not problems, "\n".join(problems)


def test_floor_rule_sees_a_violation():
  tree = ast.parse("def f():\n  from hsa_jax.evaluation import report")
  assert floor_problems("training", imported_rooms(tree))
  assert not floor_problems("cli", imported_rooms(tree))


def test_functions_and_files_are_short():
  problems = []
  for path in sources():
    name = path.relative_to(ROOT)
    lines = path.read_text().count("\n")
    if lines > MAX_FILE_LINES:
      problems.append(f"{name}: {lines} lines, at most {MAX_FILE_LINES}")
    for node in ast.walk(parse(path)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        size = node.end_lineno - node.lineno + 1
        if size > MAX_FUNCTION_LINES:
          problems.append(f"{name}:{node.lineno}: {node.name} has {size} lines")
  assert not problems, "\n".join(problems)


def test_public_functions_have_docstrings():
  problems = []
  for path in sorted(PACKAGE.rglob("*.py")):
    tree = parse(path)
    if tree.body and not ast.get_docstring(tree):
      problems.append(f"{path.relative_to(ROOT)}: module")
    for node in tree.body:
      if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
        if not ast.get_docstring(node):
          where = f"{path.relative_to(ROOT)}:{node.lineno}"
          problems.append(f"{where}: {node.name}")
  assert not problems, "\n".join(problems)


def root_name(node: ast.expr) -> str:
  """`cfg` of `cfg`, `cfg.model.hsa` and `self.cfg`."""
  last = ""
  while isinstance(node, ast.Attribute):
    last = last or node.attr
    if node.attr in ("cfg", "config"):
      return node.attr
    node = node.value
  return node.id if isinstance(node, ast.Name) else last


def banned_calls(tree: ast.Module) -> list[str]:
  """Calls that turn a misspelt field into a silent default, or worse."""
  found = []
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    call = node.func
    if isinstance(call, ast.Name) and call.id in ("eval", "exec"):
      found.append(f"line {node.lineno}: {call.id}(")
    if isinstance(call, ast.Name) and call.id in ("getattr", "setattr"):
      if root_name(node.args[0]) in ("cfg", "config"):
        found.append(f"line {node.lineno}: {call.id}(cfg")
    if isinstance(call, ast.Attribute) and call.attr == "get":
      if root_name(call.value) in ("cfg", "config"):
        found.append(f"line {node.lineno}: cfg.get(")
  return found


@pytest.mark.parametrize(
  "text",
  ["cfg.get('a', 1)", "getattr(cfg.hsa, 'a')", "self.cfg.get('a')", "eval(x)"],
)
def test_banned_calls_are_seen(text):
  assert banned_calls(ast.parse(text))


def test_no_banned_calls():
  problems = []
  for path in sources("hsa_jax"):
    # The config room is where fields live: it may walk over them by name.
    if path.is_relative_to(PACKAGE / "config"):
      continue
    found = banned_calls(parse(path))
    problems += [f"{path.relative_to(ROOT)} {text}" for text in found]
  assert not problems, "\n".join(problems)


def test_no_unfinished_code():
  marks = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error")
  problems = [
    f"{path.relative_to(ROOT)}:{i}"
    for path in sources()
    for i, line in enumerate(path.read_text().splitlines(), 1)
    if any(mark in line for mark in marks)
  ]
  assert not problems, "\n".join(problems)


IMPORT_EVERYTHING = """
import importlib, pkgutil, runpy, sys
from absl import flags
import hsa_jax

def forget_flags():  # every command defines its own --workdir
  for name in set(flags.FLAGS) - known:
    delattr(flags.FLAGS, name)

names = [m.name for m in pkgutil.walk_packages(hsa_jax.__path__, 'hsa_jax.')]
known = set(flags.FLAGS)
for name in names:
  importlib.import_module(name)
  if name.startswith('hsa_jax.cli.'):
    forget_flags()
known = set(flags.FLAGS)
for script in sys.argv[1:]:
  runpy.run_path(script, run_name='imported')
  forget_flags()
print(len(names))
"""


def test_import_initialises_no_backend():
  """With a platform that does not exist, any use of a device raises."""
  result = subprocess.run(
    [sys.executable, "-c", IMPORT_EVERYTHING, *ENTRY_POINTS],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "nonesuch"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert int(result.stdout.split()[-1]) > 20


def attributes_read(paths: list[pathlib.Path]) -> set[str]:
  return {
    node.attr
    for path in paths
    for node in ast.walk(parse(path))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
  }


def test_every_config_field_is_read():
  """A field that no code reads is a promise the configuration breaks."""
  # Counting parameters does not make a field do anything.
  skipped = (PACKAGE / "config", PACKAGE / "models" / "flops.py")
  paths = [
    path
    for path in PACKAGE.rglob("*.py")
    if not any(path.is_relative_to(s) for s in skipped)
  ]
  read = attributes_read(paths)
  kinds = [k for k in vars(fields).values() if dataclasses.is_dataclass(k)]
  unread = [
    f"{kind.__name__}.{field.name}"
    for kind in kinds
    for field in dataclasses.fields(kind)
    if field.name not in read
  ]
  assert len(kinds) >= 8
  assert not unread, f"config fields that nothing reads: {unread}"


def load_config(path: pathlib.Path) -> config_lib.Config:
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return config_lib.from_dict(module.get_config(), where=str(path))


def test_there_are_configs():
  names = {path.stem for path in CONFIG_FILES}
  assert {"quickstart", "quickstart_swa", "paper_240m"} <= names


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_config_file_is_valid_and_names_its_command(path):
  cfg = load_config(path)
  config_lib.validate(cfg, where=str(path))
  header = ast.get_docstring(parse(path)) or ""
  command = f"python train.py --config=configs/{path.name}"
  assert command in header, f"{path.name}: the header lacks '{command}'"


def test_config_survives_its_own_json():
  for path in CONFIG_FILES:
    cfg = load_config(path)
    assert config_lib.from_json(config_lib.to_json(cfg)) == cfg


def test_the_control_has_the_parameters_of_the_quickstart():
  model, control = (
    load_config(ROOT / "configs" / f"{name}.py").model
    for name in ("quickstart", "quickstart_swa")
  )
  size, other = (count_parameters(cfg).total for cfg in (model, control))
  assert abs(other / size - 1) < 0.01
  assert control.hsa.num_groups == 0
