"""Collectives of a compiled program, read from its text.

The bodies of loops count as often as they run: what a loop of layers sends, it
sends for every layer. Bytes are those that one device receives:

  all-gather          (n-1)/n of the result     n devices of a group
  all-reduce          2 (n-1)/n of the result   there and back
  reduce-scatter      n-1 times the result
  all-to-all          (n-1)/n of the result
  collective-permute  the result
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", re.ASCII)
_LOOP = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
_SET = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (.*)$")
_CONSTANT = re.compile(r"[su]32\[\]\S* constant\((\d+)\)")
_COMPARE = re.compile(r" compare\(%?([\w.-]+), %?([\w.-]+)\), direction=LT")
_PART = re.compile(r" get-tuple-element\(.*?\), index=(\d+)")
_ADD = re.compile(r" add\(%?([\w.-]+), %?([\w.-]+)\)")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")
_BITS = {"pred": 8}


class Collective(NamedTuple):
  """All collectives of one kind.

  Attributes:
    kind: of `KINDS`.
    count: how often they run in one call of the program.
    nbytes: that a device receives in it.
  """

  kind: str
  count: int
  nbytes: int


def read_collectives(text: str) -> tuple[Collective, ...]:
  """Collectives by kind, most bytes first.

  Args:
    text: a compiled module, `compiled.as_text()`.
  """
  bodies, entry = _computations(text)
  counts: dict[str, int] = collections.defaultdict(int)
  sizes: dict[str, float] = collections.defaultdict(float)
  for name, times in _runs(bodies, entry):
    for line in bodies[name]:
      match = _OPERATION.search(line)
      if match:
        counts[match[2]] += times
        sizes[match[2]] += times * _received(line, *match.groups())
  found = [Collective(k, n, round(sizes[k])) for k, n in counts.items()]
  return tuple(sorted(found, key=lambda c: -c.nbytes))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """Lines of each computation, and the name of the first to run."""
  bodies: dict[str, list[str]] = {}
  entry, current = "", None
  for line in text.splitlines():
    match = _HEAD.match(line)
    if match:
      current = bodies[match[2]] = []
      entry = match[2] if match[1] else entry
    elif current is not None:
      current.append(line)
  return bodies, entry


def _runs(
  bodies: dict[str, list[str]], name: str, times: int = 1
) -> Iterator[tuple[str, int]]:
  """Computations reached from `name`, and how often each runs."""
  if name not in bodies:
    return
  yield name, times
  for line in bodies[name]:
    loop = _LOOP.search(line)
    if loop:
      condition, body = (bodies.get(loop[i], []) for i in (1, 2))
      trips = _trips(line, condition, body)
      yield from _runs(bodies, loop[2], times * trips)
      continue
    branches = _BRANCHES.search(line)
    called = re.findall(r"[\w.-]+", branches[1]) if branches else []
    for other in (*called, *_CALLS.findall(line)):
      yield from _runs(bodies, other, times)


def _trips(line: str, condition: list[str], body: list[str]) -> int:
  """How often a loop runs: told by the compiler, or read from its counter.

  The condition compares an element of the loop's tuple with a constant; the
  body adds another constant to it.
  """
  known = _TRIPS.search(line)
  if known:
    return int(known[1])
  test, inside = _values(condition), _values(body)
  compared = next(filter(None, map(_COMPARE.search, test.values())), None)
  if compared is None:
    return 1
  counter = _PART.search(test.get(compared[1], ""))
  bound = _CONSTANT.match(test.get(compared[2], ""))
  if counter is None or bound is None:
    return 1
  return -(-int(bound[1]) // _increment(inside, body, int(counter[1])))


def _increment(inside: dict[str, str], body: list[str], index: int) -> int:
  """What a body adds to one element of its tuple; 1 where it cannot be read."""
  root = next((line for line in body if line.startswith("  ROOT ")), "")
  operands = re.findall(r"%([\w.-]+)", root.partition(" tuple(")[2])
  if index >= len(operands):
    return 1
  added = _ADD.search(inside.get(operands[index], ""))
  steps = (
    (_CONSTANT.match(inside.get(n, "")) for n in added.groups())
    if (added)
    else ()
  )
  return next((int(step[1]) for step in steps if step), 1)


def _values(lines: list[str]) -> dict[str, str]:
  """What each name of a computation is set to."""
  return {m[1]: m[2] for line in lines if (m := _SET.match(line))}


def _received(line: str, shapes: str, kind: str, start: str | None) -> float:
  size, group = _size(shapes), _group(line)
  if start and kind == "collective-permute":
    size /= 2  # operand and result
  elif start and kind == "all-gather":
    size *= group / (group + 1)
  share = (group - 1) / group
  return (
    size
    * {
      "all-gather": share,
      "all-reduce": 2 * share,
      "reduce-scatter": group - 1,
      "all-to-all": share,
      "collective-permute": 1.0,
    }[kind]
  )


def _size(shapes: str) -> float:
  """Bytes of all arrays in a type."""
  total = 0.0
  for dtype, sizes in _ARRAY.findall(shapes):
    bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype))
    count = math.prod(int(n) for n in sizes.split(",") if n)
    # Scalars beside a permuted array are its bookkeeping.
    total += 0 if not sizes and dtype == "u32" else count * bits / 8
  return total


def _group(line: str) -> int:
  """Devices of a group, in any of the forms that XLA writes."""
  listed = _GROUPS.search(line)
  if listed:
    return len(listed[1].split(",")) if listed[1] else int(listed[2])
  meshed = _MESH_GROUPS.search(line)
  if meshed is None:
    return 1
  sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
  # An axis, or a part of one: 'a' and 'a':(2)4.
  used = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", meshed[2])
  return math.prod(int(part or sizes[name]) for name, part in used)
