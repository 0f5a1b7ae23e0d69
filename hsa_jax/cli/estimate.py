"""Says what a training run takes on chips that you have not rented.

    python -m hsa_jax.cli.estimate --config=configs/paper_240m.py
      --topology=v5e:4x4

Prints parameters and operations by part of the model, bytes per device, and the
least time of a step: arithmetic, in seconds. Where libtpu is installed (pip
install -e ".[tpu]") the real training step is then compiled for those chips, on
this machine: the memory that it will need and every collective. A run that does
not fit is refused, with what lacks and the nearest change that fits.

  --config=FILE     as train.py takes it, with the same overrides:
                      --config.mesh.fsdp=-1 --config.mesh.data=1
                      --config.data.stages[0].batch_size=256
  --topology=NAME   chips of one slice, as CHIP:SHAPE
                      v5e:16x16   v5p:4x4x4   v6e:16x16   v4:4x4x4
                      h100:16     16 GPUs in nodes of 8
                      v5p:64      64 chips of any layout: not compiled
  --slices=N        so many such slices, joined by the network (default 1)
  --compile=WHEN    auto     in full where libtpu is installed (default)
                    never    arithmetic only
                    quick    less optimised: does it compile at all
                    full     in full, and an error where that is not possible
  --sweep           try batch x remat x mesh; print what fits, fastest first
  --scaling=8,4096  the same rows per device on each number of chips, as a table
  --chips           print the table of chips
  --help            this text

The time is a floor: matrix products at peak rate, memory and collectives at
full bandwidth, all overlapping. docs/scaling.md has the formulas and what they
leave out.
Exit codes: 0 it fits, 2 something to correct, or it does not fit.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
from absl import flags

from hsa_jax.cli import config_flag, estimate_text
from hsa_jax.cli.faults import exit_code
from hsa_jax.config import Config, ConfigError, StageConfig, validate
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.parallel.chips import Topology, TopologyError, parse_topology
from hsa_jax.training import aot, prospect
from hsa_jax.training.footprint import mesh_of, state_shapes, unsplit
from hsa_jax.training.state import TrainState

INPUT_ERRORS = (
  config_flag.UsageError,
  ConfigError,
  FlagError,
  TopologyError,
)
WHEN = ("auto", "never", "quick", "full")


class DoesNotFit(FlagError):
  """A run that needs more memory than its chips have."""


class Arguments(NamedTuple):
  """The command line."""

  cfg: Config
  topology: Topology
  compile: str
  sweep: bool
  scaling: list[int]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv if argv is None else argv)
  if {"--help", "-h", "-help", "--helpfull"} & set(argv):
    print((__doc__ or "").strip())
    return 0
  if "--chips" in argv:
    print("\n".join(estimate_text.chips_table()))
    return 0
  # An estimate must not take the machine's accelerator from a run.
  if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
  return exit_code(
    lambda: run(read_arguments(argv)),
    input_errors=INPUT_ERRORS,
    if_out_of_memory="the compiler needs more than this machine has; use"
    " --compile=never",
  )


def read_arguments(argv: Sequence[str]) -> Arguments:
  """Parses and validates; touches no device.

  Raises:
    UsageError, ConfigError, FlagError, TopologyError: one message each.
  """
  values = config_flag.parse(argv, _define_flags)
  cfg = config_flag.read_config(values)
  topology = _topology(
    values["topology"].value, int(values["slices"].value or 0)
  )
  when = str(values["compile"].value)
  if when not in WHEN:
    raise FlagError([f"--compile={when}: takes one of {', '.join(WHEN)}"])
  scaling = _counts(str(values["scaling"].value or ""))
  where = config_flag.source_name(values)
  validate(
    cfg,
    num_devices=None if scaling else topology.num_devices,
    where=f"{where} on {topology}",
  )
  if not scaling:
    _check_slices(cfg, topology)
  return Arguments(cfg, topology, when, bool(values["sweep"].value), scaling)


def run(arguments: Arguments) -> None:
  """Prints what was asked for.

  Raises:
    DoesNotFit: after everything was printed.
  """
  cfg, topology = arguments.cfg, arguments.topology
  if arguments.scaling:
    _print(estimate_text.scaling_table(_scaled(arguments)))
    return
  if arguments.sweep:
    for stage in _distinct(cfg):
      _print(estimate_text.sweep_table(*prospect.sweep(cfg, stage, topology)))
    return
  state = state_shapes(cfg)
  prospects = [
    prospect.look_ahead(cfg, stage, topology, state) for stage in _distinct(cfg)
  ]
  mesh = " x ".join(f"{a}={n}" for a, n in prospects[0].mesh.shape.items())
  _print(estimate_text.heading(cfg, topology, mesh))
  for one in prospects:
    print()
    backend = topology.chip.platform
    _print(estimate_text.parts(cfg, one.stage.seq_len, backend))
    print()
    _print(estimate_text.memory(one))
    whole = unsplit(state, one.mesh)
    _print(estimate_text.not_split(whole, dict(one.mesh.shape)["fsdp"]))
    _print(estimate_text.times(one))
    _compile(one, state, arguments.compile)


def _compile(one: prospect.Prospect, state: TrainState, when: str) -> None:
  """Compiles if wanted and possible; refuses what does not fit.

  Raises:
    DoesNotFit: by the compiler's word; without one, by arithmetic.
    FlagError: a compilation was asked for and cannot be had.
  """
  lacking = aot.missing(one.topology)
  if when == "never" or (when == "auto" and lacking):
    if when == "auto":
      print(f"  not compiled: {lacking}")
    if one.missing > 0:
      raise _refusal(one, state)
    return
  if lacking:
    raise FlagError([f"--compile={when}: {lacking}"])
  print("  compiling ...", file=sys.stderr)
  try:
    found = aot.compile_step(
      one.cfg,
      one.stage,
      one.topology,
      effort=aot.QUICK if when == "quick" else aot.FULL,
    )
  except aot.OverBudget as over:
    raise _refusal(one, state, over) from over
  except aot.CannotCompile as error:
    raise FlagError([f"--topology={one.topology.name}: {error}"]) from error
  _print(estimate_text.compiled(found, one))


def _refusal(
  one: prospect.Prospect,
  state: TrainState,
  over: aot.OverBudget | None = None,
) -> DoesNotFit:
  needed = over.needed if over else one.needed.total
  available = over.available if over else one.topology.hbm_bytes
  change = prospect.nearest_fit(
    one, state, compiled=over.needed if over else None
  )
  by = "the compiler" if over else "arithmetic"
  text = estimate_text.too_large(one, needed, available, change, by)
  return DoesNotFit([text])


def _scaled(arguments: Arguments) -> list[prospect.Prospect]:
  cfg, topology = arguments.cfg, arguments.topology
  stage = cfg.data.stages[0]
  rows = max(1, stage.batch_size // topology.num_devices)
  found = prospect.scaled(cfg, stage, topology.chip, arguments.scaling, rows)
  try:
    return list(found)
  except ValueError as error:
    raise FlagError([f"--scaling: {error}"]) from error


def _define_flags(values: flags.FlagValues) -> None:
  text = flags.DEFINE_string
  text("topology", None, "chips of one slice", flag_values=values)
  text("compile", "auto", "when to compile", flag_values=values)
  text("scaling", "", "numbers of chips", flag_values=values)
  flags.DEFINE_integer("slices", 1, "number of slices", flag_values=values)
  flags.DEFINE_bool("sweep", False, "try settings", flag_values=values)


def _topology(text: str | None, slices: int) -> Topology:
  if not text:
    raise config_flag.UsageError(
      "--topology=NAME is missing, as in --topology=v5e:4x4"
    )
  try:
    return parse_topology(text, slices=slices)
  except TopologyError as error:
    raise TopologyError(f"--topology={error}") from error


def _check_slices(cfg: Config, topology: Topology) -> None:
  """Slices share the batch; context and tensor stay inside one."""
  sizes = dict(mesh_of(cfg, topology.num_devices).shape)
  if sizes["data"] * sizes["fsdp"] % topology.slices:
    raise FlagError(
      [
        f"--slices={topology.slices}: must divide data*fsdp ="
        f" {sizes['data'] * sizes['fsdp']} of the mesh, since slices share the"
        f" batch; fix: --config.mesh.data={topology.slices}"
      ]
    )


def _counts(text: str) -> list[int]:
  try:
    counts = [int(part) for part in text.split(",") if part]
  except ValueError:
    counts = [0]
  if any(count < 1 for count in counts):
    raise FlagError([f"--scaling={text}: takes numbers of chips, as in 8,64"])
  return counts


def _distinct(cfg: Config) -> list[StageConfig]:
  """Stages whose steps differ in shape."""
  return list({(s.batch_size, s.seq_len): s for s in cfg.data.stages}.values())


def _print(lines: Iterable[str]) -> None:
  for line in lines:
    print(line, flush=True)


if __name__ == "__main__":
  sys.exit(main())
