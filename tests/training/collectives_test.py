"""Collectives read from the text of compiled programs."""

import pytest

from hsa_jax.training.collectives import read_collectives

PROGRAM = """\
HloModule jit_run

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%layer (p.1: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  %x = bf16[4,8]{1,0} get-tuple-element(%p.1), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %send = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) \
collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %got = bf16[4,8]{1,0} collective-permute-done(%send)
  ROOT %out = (s32[], bf16[4,8]{1,0}) tuple(%next, %got)
}

%more (p.2: (s32[], bf16[4,8])) -> pred[] {
  %p.2 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%p.2), index=0
  %end = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %end), direction=LT
}

%fused (q: f32[16]) -> f32[16] {
  %q = f32[16]{0} parameter(0)
  ROOT %r = f32[16]{0} all-reduce(%q), replica_groups=[2,4]<=[8], to_apply=%sum
}

ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  %whole = bf16[32,8]{1,0:T(8,128)(2,1)} all-gather(%x.1), \
replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %part = f32[2,8]{1,0} reduce-scatter(%y), \
replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, to_apply=%sum
  %same = f32[16]{0} fusion(%z), kind=kLoop, calls=%fused
  %loop = (s32[], bf16[4,8]{1,0}) while(%init), condition=%more, body=%layer
  ROOT %last = bf16[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def found(text: str) -> dict[str, tuple[int, int]]:
  return {c.kind: (c.count, c.nbytes) for c in read_collectives(text)}


def test_bytes_received_by_hand():
  got = found(PROGRAM)
  assert got == {
    "all-gather": (1, 32 * 8 * 2 * 7 // 8),
    "reduce-scatter": (1, 2 * 8 * 4 * 3),
    "all-reduce": (1, 2 * 16 * 4 * 3 // 4),
    # From 0 in steps of 2 while below 7: four times.
    "collective-permute": (4, 4 * 4 * 8 * 2),
  }


def test_a_count_that_the_compiler_tells_is_taken():
  told = PROGRAM.replace(
    "body=%layer", 'body=%layer, backend_config={"known_trip_count":{"n":"9"}}'
  )
  assert found(told)["collective-permute"][0] == 9


def test_loops_inside_loops_multiply():
  inner = PROGRAM.replace(
    "  %next =",
    "  %deep = f32[16] while(%u), condition=%more, body=%fused\n  %next =",
  )
  # The inner body adds nothing that can be read to its counter: 7 times.
  assert found(inner)["all-reduce"] == (1 + 4 * 7, (1 + 4 * 7) * 96)


def test_most_bytes_come_first():
  sizes = [c.nbytes for c in read_collectives(PROGRAM)]
  assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
  ("groups", "size"),
  [
    ("{{0,1},{2,3}}", 2),
    ("[4,2]<=[8]", 2),
    ("mesh['a'=2,'b'=4] {'a','b'}", 8),
    ("mesh['a'=2,'b'=4] {'b':(1)2}", 2),
  ],
)
def test_every_form_of_groups(groups, size):
  text = (
    "ENTRY %main (x: f32[8]) -> f32[8] {\n"
    f"  %y = f32[80]{{0}} all-gather(%x), replica_groups={groups}\n}}\n"
  )
  assert found(text) == {"all-gather": (1, 320 * (size - 1) // size)}


def test_starts_hold_operand_and_result():
  text = (
    "ENTRY %main (x: f32[8]) -> f32[32] {\n"
    "  %y = (f32[8]{0}, f32[32]{0}) all-gather-start(%x),"
    " replica_groups={{0,1,2,3}}\n}\n"
  )
  assert found(text) == {"all-gather": (1, 96)}


def test_a_program_without_collectives_has_none():
  assert found("ENTRY %main (x: f32[]) -> f32[] {\n}\n") == {}
