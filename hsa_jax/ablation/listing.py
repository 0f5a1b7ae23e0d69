"""What a grid is, and how far it is, as text."""

from collections.abc import Iterator, Sequence

from hsa_jax.ablation.grid import Grid
from hsa_jax.ablation.resolve import Resolved, changed_fields
from hsa_jax.ablation.state import Progress, Status
from hsa_jax.models.flops import flops_per_token
from hsa_jax.models.parameters import count_parameters


def list_cells(grid: Grid, found: Sequence[Resolved]) -> Iterator[str]:
  """Every cell: parameters, operations per token, what differs, its claim."""
  base = count_parameters(grid.base.model).total
  width = max(len(one.cell.name) for one in found)
  yield (
    f"{'cell':{width}}  {'parameters':>11}  {'of base':>7}"
    f"  {'MFLOP/token':>11}  what differs"
  )
  for one in found:
    length = max(stage.seq_len for stage in one.cfg.data.stages)
    flops = flops_per_token(one.cfg.model, length).useful / 1e6
    share = one.parameters / base - 1
    differs = shorten(changed_fields(grid.base, one.cfg))
    after = one.cell.after and f"after {one.cell.after}"
    told = "; ".join(filter(None, (after, differs, *one.cell.eval_flags)))
    yield (
      f"{one.cell.name:{width}}  {one.parameters:11,}  {share:+7.1%}"
      f"  {flops:11.3f}  {told or one.cell.claim}"
    )
  for combination in grid.undefined:
    yield f"{combination.name:{width}}  undefined: {combination.reason}"
  for name, members in grid.subsets.items():
    yield f"--subset={name}: {', '.join(members)}"


def shorten(changed: Sequence[str], most: int = 4) -> str:
  """Changed fields in one line; many fields of stages are told as one."""
  stages = [line for line in changed if line.startswith("data.stages")]
  others = [line for line in changed if line not in stages]
  if len(stages) > most:
    others.append(f"data.stages ({len(stages)} fields)")
  else:
    others += stages
  return "; ".join(line.removeprefix("model.") for line in others)


def list_progress(found: Sequence[Progress]) -> Iterator[str]:
  """Every run with its status, then how many there are of each."""
  width = max((len(p.run.name) for p in found), default=0)
  for p in found:
    spent = f"  {format_seconds(p.seconds)}" if p.seconds else ""
    why = f"  {p.failure}" if p.failure else ""
    yield f"{p.run.name:{width}}  {p.run.hash}  {p.status:8}{spent}{why}"
  counts = {status: sum(p.status is status for p in found) for status in Status}
  text = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
  yield f"{len(found)} runs: {text}"


def format_seconds(seconds: float) -> str:
  """3723 -> `1 h 02 min`; 125 -> `2 min 05 s`; 9 -> `9 s`."""
  whole = round(seconds)
  if whole >= 3600:
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
  if whole >= 60:
    return f"{whole // 60} min {whole % 60:02} s"
  return f"{whole} s"
