"""What the estimate says, as text."""

from collections.abc import Iterator, Sequence

from hsa_jax.config import Config, Remat
from hsa_jax.models.flops import flops_per_token
from hsa_jax.models.parameters import count_parameters
from hsa_jax.parallel import ShardingRow
from hsa_jax.parallel.chips import CHIPS, GIB, Topology
from hsa_jax.training.aot import Compiled
from hsa_jax.training.prospect import Change, Prospect

MAX_ROWS = 20


def chips_table() -> Iterator[str]:
  """All chips that a topology may name."""
  yield (
    f"{'chip':6} {'bf16 TFLOP/s':>12} {'HBM GiB':>8} {'HBM GB/s':>9}"
    f" {'links GB/s':>10} {'network GB/s':>12} {'joined':>6}"
  )
  for chip in CHIPS.values():
    network = chip.network_bytes_per_s
    yield (
      f"{chip.name:6} {chip.peak_flops / 1e12:12,.0f}"
      f" {chip.hbm_bytes / GIB:8.1f} {chip.hbm_bytes_per_s / 1e9:9,.0f}"
      f" {chip.link_bytes_per_s / 1e9:10,.0f}"
      f" {f'{network / 1e9:.2f}' if network else '-':>12}"
      f" {chip.domain_chips:6,}"
    )


def heading(cfg: Config, topology: Topology, mesh: str) -> Iterator[str]:
  """The run and its chips."""
  chips = topology.num_chips
  yield (
    f"topology    {topology}: {_many(chips, 'chip')},"
    f" {_many(topology.num_devices, 'device')} of"
    f" {topology.hbm_bytes / GIB:.1f} GiB and"
    f" {topology.peak_flops / 1e12:,.0f} TFLOP/s"
  )
  yield f"mesh        {mesh}; remat={cfg.model.remat}"


def parts(cfg: Config, seq_len: int, backend: str) -> Iterator[str]:
  """Parameters and operations by part of the model."""
  counts = count_parameters(cfg.model)
  flops = flops_per_token(cfg.model, seq_len, backend=backend)
  yield (
    f"{'part':10} {'parameters':>14} {'useful':>10} {'executed':>10}"
    "   MFLOP per token, forward"
  )
  for name, count in counts._asdict().items():
    useful, executed = flops.useful_parts[name], flops.executed_parts[name]
    if count or executed:
      yield (
        f"{name:10} {count:14,} {useful / 1e6:10,.1f} {executed / 1e6:10,.1f}"
      )
  yield (
    f"{'all':10} {counts.total:14,} {flops.useful / 1e6:10,.1f}"
    f" {flops.executed / 1e6:10,.1f}"
  )
  again = "" if cfg.model.remat is Remat.NONE else ", blocks once more (remat)"
  yield f"training: 3 times forward{again}; {seq_len} tokens a row"


def memory(prospect: Prospect) -> Iterator[str]:
  """Bytes per device, by arithmetic."""
  needed, stage = prospect.needed, prospect.stage
  yield (
    f"stage {stage.name}: {stage.batch_size} x {stage.seq_len} tokens a step,"
    f" {prospect.cfg.train.grad_accum_steps} micro-batch(es)"
  )
  yield "  memory per device, by arithmetic"
  rows = {
    "parameters": needed.parameters,
    "optimizer": needed.optimizer,
    "activations kept": needed.saved,
    "gradients, block": needed.gradients + needed.block,
    "or logits": needed.head,
  }
  for name, nbytes in rows.items():
    yield f"    {name:17} {nbytes / GIB:9.2f} GiB"
  if needed.host:
    yield f"    {'in host memory':17} {needed.host / GIB:9.2f} GiB"
  verdict = "fits" if prospect.missing <= 0 else "does not fit"
  yield (
    f"    {'peak':17} {needed.total / GIB:9.2f} GiB of"
    f" {prospect.topology.hbm_bytes / GIB:.2f}: {verdict}"
  )


def not_split(rows: Sequence[ShardingRow], fsdp: int) -> Iterator[str]:
  """Matrices that every device holds whole although fsdp is asked for."""
  if rows:
    nbytes = sum(row.bytes_per_device for row in rows)
    yield (
      f"  not split: {len(rows)} matrices, {nbytes / GIB:.2f} GiB on each"
      f" device, as {rows[0].name} {rows[0].shape}: fsdp={fsdp} does not"
      " divide them"
    )


def times(prospect: Prospect) -> Iterator[str]:
  """The floor of a step, and what it is made of."""
  least = prospect.floor
  yield "  time of a step, at best"
  for name in ("compute", "memory", "links", "network"):
    seconds = least._asdict()[name]
    if seconds:
      yield f"    {name:8} {1e3 * seconds:12,.2f} ms"
  for transfer in least.transfers:
    beyond = (
      f", {transfer.network / 1e9:,.3f} GB over the network"
      if transfer.network
      else ""
    )
    yield (
      f"      {transfer.name:24} {transfer.links / 1e9:9,.3f} GB per device"
      f" over links{beyond}"
    )
  yield (
    f"    step >= {1e3 * least.step:,.2f} ms ({least.bound}), at most"
    f" {prospect.tokens_per_s:,.0f} tokens/s per device, MFU at most"
    f" {least.utilisation:.1%}"
  )


def compiled(found: Compiled, prospect: Prospect) -> Iterator[str]:
  """What the compiler said."""
  yield f"  compiled by {found.compiler} in {found.seconds:.0f} s"
  yield (
    f"    peak        {found.peak / GIB:9.2f} GiB of"
    f" {prospect.topology.hbm_bytes / GIB:.2f} (arithmetic:"
    f" {prospect.needed.total / GIB:.2f})"
  )
  if found.host:
    yield f"    on the host {found.host / GIB:9.2f} GiB"
  for kind, count, nbytes in found.collectives:
    yield f"    {kind:18} {count:6,} times, {nbytes / 1e9:9,.3f} GB per device"


def sweep_table(fitting: Sequence[Change], too_large: int) -> Iterator[str]:
  """What fits, best first; the present settings too, wherever they stand."""
  yield (
    f"{len(fitting)} of {len(fitting) + too_large} settings fit, by arithmetic;"
    " fastest first"
  )
  yield (
    f"{'':>4} {'tokens/s/device':>15} {'MFU':>6} {'GiB':>6}  bound    change"
  )
  for rank, change in enumerate(fitting, 1):
    if rank > MAX_ROWS and change.flags:
      continue
    least, needed = change.prospect.floor, change.prospect.needed
    yield (
      f"{rank:4} {change.prospect.tokens_per_s:15,.0f} {least.utilisation:6.1%}"
      f" {needed.total / GIB:6.1f}  {least.bound:8}"
      f" {change.flags or '(as it is)'}"
    )
  if len(fitting) > MAX_ROWS:
    yield f"({len(fitting) - MAX_ROWS} are slower than these {MAX_ROWS})"


def scaling_table(prospects: Sequence[Prospect]) -> Iterator[str]:
  """The same work per chip on more chips, as a Markdown table."""
  yield (
    "| chips | slices | data x fsdp x tensor | tokens a step | GiB per device"
    " | links, GB | network, GB | step, ms | bound | MFU at most |"
  )
  yield "|---:|---:|:---:|---:|---:|---:|---:|---:|---|---:|"
  for p in prospects:
    sizes = dict(p.mesh.shape)
    mesh = " x ".join(str(sizes[a]) for a in ("data", "fsdp", "tensor"))
    links, network = (
      sum(t._asdict()[name] for t in p.floor.transfers) / 1e9
      for name in ("links", "network")
    )
    tokens = p.stage.batch_size * p.stage.seq_len
    yield (
      f"| {p.topology.num_chips:,} | {p.topology.slices} | {mesh}"
      f" | {tokens:,} | {p.needed.total / GIB:.2f} | {links:.3f}"
      f" | {network:.3f} | {1e3 * p.floor.step:,.1f} | {p.floor.bound}"
      f" | {p.floor.utilisation:.1%} |"
    )


def too_large(
  prospect: Prospect,
  needed: int,
  available: int,
  change: Change | None,
  by: str,
) -> str:
  """The refusal: what lacks, and the nearest change that fits."""
  text = (
    f"stage {prospect.stage.name} does not fit {prospect.topology}: {by} asks"
    f" for {needed / GIB:.2f} GiB on each device, which has"
    f" {available / GIB:.2f} GiB: {(needed - available) / GIB:.2f} GiB too much"
  )
  if change is None:
    return text + "\n  fix: more chips, a smaller batch or a smaller model"
  return (
    text + f"\n  fix: {change.flags} (by arithmetic"
    f" {change.prospect.needed.total / GIB:.2f} GiB)"
  )


def _many(count: int, name: str) -> str:
  return f"{count:,} {name}{'' if count == 1 else 's'}"
