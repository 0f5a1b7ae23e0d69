"""The language model: lower decoder, chunk memory, upper decoder, head.

    tokens -> embed -> lower blocks -> chunk encoder -> memory
                            |                             |
                            +-> groups of [read, blocks] -+-> norm -> head

One set of parameters, reached whole (training) or in stages (streaming).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig, group_layers, layers_of, lower_layers
from hsa_jax.models.attention import (
  Blocks,
  build_blocks,
  empty_state,
  recurrent_state,
  run_blocks,
)
from hsa_jax.models.encoder import ChunkEncoder
from hsa_jax.models.group import HsaGroup
from hsa_jax.models.hsa import Chosen, HsaBlock, SequenceMemory
from hsa_jax.models.layers import initializer, linear, stream_norm
from hsa_jax.models.marks import (
  Marks,
  asks_ahead,
  mark_every,
  stream_length,
  stream_stride,
)
from hsa_jax.models.mixers import grows, reach_of
from hsa_jax.models.remat import apply_remat
from hsa_jax.parallel import fill_context, split_rows, whole_rows
from hsa_jax.types import (
  Carry,
  ChunkBlock,
  GroupCarry,
  Hidden,
  Limits,
  Logits,
  PRNGKey,
  RowStates,
  Searchable,
  Tokens,
)


class LanguageModel(nnx.Module):
  """A decoder over real tokens: any length, ids in, logits aligned to ids out.

  With `cfg.hsa.num_groups = 0` there is no memory: the upper layers follow the
  lower ones and the model is a plain transformer. What its layers are, windows
  or others, `cfg.layers` says.

  Attributes:
    cfg: the static configuration.
  """

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    self.embedding = nnx.Embed(
      cfg.vocab_size,
      cfg.embed_dim,
      embedding_init=initializer(cfg.init_scale),
      dtype=jnp.dtype(cfg.compute_dtype),
      rngs=rngs,
    )
    layers = lower_layers(cfg)
    self.lower_blocks: Blocks = build_blocks(cfg, layers, rngs.params())
    if cfg.hsa.num_groups:
      self.encoder = ChunkEncoder(cfg, rngs=rngs)
    if mark_every(cfg):
      init = jax.random.normal(rngs.params(), (cfg.embed_dim,), jnp.float32)
      self.mark = nnx.Param(init * cfg.init_scale)
    self.groups = nnx.List(
      [HsaGroup(cfg, i, rngs=rngs) for i in range(cfg.hsa.num_groups)]
    )
    self.norm = stream_norm(cfg)
    if not cfg.tie_embeddings:
      self.output = linear(
        cfg.embed_dim,
        cfg.vocab_size,
        scale=cfg.init_scale,
        dtype=cfg.compute_dtype,
        rngs=rngs,
      )

  def __call__(
    self,
    tokens: Tokens,
    *,
    limits: Limits = Limits(),
    noise_key: PRNGKey | None = None,
  ) -> Logits:
    """Next-token logits of every position, float32.

    Args:
      tokens: ids; the length need not divide by anything.
      limits: values of the schedules of K and W at this step.
      noise_key: noise on the selection of chunks, if the config asks for it.
    """
    return self.head(self.hidden(tokens, limits=limits, noise_key=noise_key))

  def hidden(
    self,
    tokens: Tokens,
    *,
    limits: Limits = Limits(),
    noise_key: PRNGKey | None = None,
  ) -> Hidden:
    """The stream after the last block, before the final norm and the head."""
    states = RowStates(None, (None,) * len(self.groups))
    return self._run(tokens, states, limits, noise_key)[0]

  def with_states(
    self,
    tokens: Tokens,
    states: RowStates,
    *,
    limits: Limits = Limits(),
    noise_key: PRNGKey | None = None,
  ) -> tuple[Logits, RowStates]:
    """`__call__` with recurrent layers that begin with given states.

    Args:
      tokens: ids `[B T]`.
      states: shaped like those of `init_row_states(n * B)`. With n > 1 the
        layers begin anew at each of `n` equal segments of a row.
      limits: as in `__call__`.
      noise_key: as in `__call__`.

    Returns:
      Logits, and the states after the last token of each row or segment.
    """
    hidden, states = self._run(tokens, states, limits, noise_key)
    return self.head(hidden), states

  def init_row_states(self, rows: int) -> RowStates:
    """Recurrent states of zeros; None in place of all other layers."""
    groups = (recurrent_state(g.window_blocks, rows) for g in self.groups)
    return RowStates(recurrent_state(self.lower_blocks, rows), tuple(groups))

  def _run(
    self,
    tokens: Tokens,
    states: RowStates,
    limits: Limits,
    noise_key: PRNGKey | None,
  ) -> tuple[Hidden, RowStates]:
    length, hsa = tokens.shape[1], self.cfg.hsa
    chunk_size = hsa.chunk_size if hsa.num_groups else 1
    tokens = fill_context(tokens, chunk_size=chunk_size)
    marks = self._marks(tokens.shape[1])
    x, lower = run_blocks(
      self.lower_blocks,
      self._embed(tokens, marks),
      states.lower,
      limits=limits,
      remat=self.cfg.remat,
    )
    if not hsa.num_groups:
      return x[:, :length], RowStates(lower, ())
    encode = apply_remat(lambda encoder, x: encoder(x), self.cfg.remat)
    block = encode(self.encoder, x)
    block = block._replace(landmarks=whole_rows(block.landmarks, tensor=-2))
    chosen, after = None, []
    for i, group in enumerate(self.groups):
      noise = self._noise(noise_key, i)
      x, chosen = apply_remat(self._read, self.cfg.remat)(
        group.block, split_rows(x), block, limits, noise, chosen
      )
      x, one = group.run_layers(x, limits, states.groups[i])
      after.append(one)
    x = (x if marks is None else marks.drop(x))[:, :length]
    return x, RowStates(lower, tuple(after))

  def _read(
    self,
    block: HsaBlock,
    x: Hidden,
    chunks: ChunkBlock,
    limits: Limits,
    noise_key: PRNGKey | None,
    chosen: Chosen | None,
  ) -> tuple[Hidden, Chosen]:
    """One group's read of the sequence's own chunks, and which it chose."""
    memory = SequenceMemory(
      chunks,
      self.cfg.hsa.implementation,
      limits.top_k,
      noise_key,
      aligned=True,
    )
    return block(x, memory, 0, limits, chosen)

  def head(self, hidden: Hidden) -> Logits:
    """Final norm and scaled logits, float32."""
    hidden = self.norm(split_rows(hidden))
    if self.cfg.tie_embeddings:
      logits = self.embedding.attend(hidden)
    else:
      logits = self.output(hidden)
    logits = split_rows(logits, tensor=-1).astype(jnp.float32)
    scale = self.cfg.logit_scale
    return logits if scale == 1 else logits * scale

  def init_carry(self, batch: int, capacity: int = 0) -> Carry:
    """What the lower decoder remembers before the first token.

    Args:
      batch: sequences.
      capacity: tokens that each will have, at most; layers that remember every
        token take the room for them here, others do not ask.
    """
    capacity = stream_length(self.cfg, capacity)
    return empty_state(self.lower_blocks, batch, capacity)

  def lower(
    self,
    tokens: Tokens,
    carry: Carry,
    *,
    position: int | jax.Array = 0,
    reuse: int | None = None,
    count: int | jax.Array | None = None,
  ) -> tuple[Hidden, Carry]:
    """The next stretch of the lower decoder, any number of tokens at a time.

    Args:
      tokens: the tokens that follow those seen by `carry`.
      carry: from `init_carry` or the stretch before.
      position: absolute index of the first token; only absolute positions
        (`Position.ABSOLUTE_ROPE`) depend on it.
      reuse: `num_reused(position, length)`, static; None: that of a stretch
        which begins with a chunk. Only inserted landmarks depend on it.
      count: leading tokens that are real, the rest is filling; None: all.

    Returns:
      Hidden states of the stretch, a row per token (see `marks.py` for their
      width), and the carry after its real tokens.
    """
    marks = self._marks(tokens.shape[1], reuse)
    hidden, after = run_blocks(
      self.lower_blocks,
      self._embed(tokens, marks),
      carry,
      position=stream_length(self.cfg, position),
      count=_rows(marks, count),
    )
    return hidden if marks is None else marks.pack(hidden), after

  def encode(
    self, hidden: Float[Array, "B T W"], *, position: int | jax.Array = 0
  ) -> ChunkBlock:
    """Landmarks, keys and values of the complete chunks of `hidden`.

    Args:
      hidden: of `lower`; must begin at a chunk border of the sequence.
      position: absolute index of its first token; of keys with `hsa.position`.
    """
    marks = self._marks(hidden.shape[1])
    hidden = hidden if marks is None else marks.unpack(hidden)
    return self.encoder(hidden, position)

  @property
  def upper_reach(self) -> int | None:
    """Tokens back that upper states depend on upper states; None: all.

    Besides windows it is the row that retrieved for a token. That of the first
    group stands in the suffix itself, which begins where a retrieval does; a
    mark stands in the chunk before. Inserted landmarks count as tokens here.
    """
    hsa, total = self.cfg.hsa, 0
    for group in range(hsa.num_groups):
      reach = reach_of(group_layers(self.cfg, group))
      if reach is None:
        return None
      total += reach + hsa.block_window * (self.cfg.window_size - 1)
      if group % hsa.groups_per_retrieval == 0:
        ahead = asks_ahead(self.cfg)
        back = stream_stride(self.cfg) - (0 if ahead else 1)
        total += back if ahead or group else 0
    return total

  @property
  def needs_capacity(self) -> bool:
    """Whether some layer remembers every token, and needs room for them."""
    depth = self.cfg.num_lower_layers + self.cfg.num_upper_layers
    return any(map(grows, layers_of(self.cfg, 0, depth)))

  def suffix_length(self, num_outputs: int) -> int | None:
    """Tokens that the upper decoder must see for exact last outputs.

    The memory depends on the lower decoder alone, and the upper decoder mixes
    tokens through its windows only: `A + (W - 1) * layers` tokens suffice, and
    more where tokens share retrievals (`upper_reach`).

    Returns:
      None where an upper layer sees the whole context, by a cache or through
      its state: then every token must go through the upper decoder, from the
      first on.
    """
    reach = self.upper_reach
    return None if reach is None else num_outputs + reach

  def init_upper_carry(
    self, batch: int, capacity: int = 0
  ) -> tuple[GroupCarry, ...]:
    """What the upper decoder remembers before its first token.

    See `init_carry` for the capacity.
    """
    capacity = stream_length(self.cfg, capacity)
    return tuple(group.init_carry(batch, capacity) for group in self.groups)

  def num_reused(self, position: int, length: int) -> int:
    """Leading tokens of a stretch before the first retrieval in it.

    The first token of each block of `hsa.tokens_per_retrieval` retrieves. With
    inserted landmarks it is the first token that one follows.
    """
    every = mark_every(self.cfg)
    if every:
      return min(-(position + 1) % every, length)
    return min(-position % self.cfg.hsa.tokens_per_retrieval, length)

  def upper(
    self,
    hidden: Float[Array, "B T W"],
    memory: Searchable,
    carry: tuple[GroupCarry, ...],
    *,
    position: int | jax.Array,
    reuse: int | None = None,
    count: int | jax.Array | None = None,
  ) -> tuple[Hidden, tuple[GroupCarry, ...]]:
    """The next stretch of the upper decoder, from states of the lower one.

    If it has a `suffix_length`, it may begin in the middle of a sequence with
    an empty carry: then only the last outputs are those of the whole sequence.

    Args:
      hidden: lower states of consecutive tokens.
      memory: the chunks before them, on the device or elsewhere; may hold
        later chunks as well, which no token sees.
      carry: from `init_upper_carry` or the stretch before.
      position: absolute index of the first token of `hidden`.
      reuse: `num_reused(position, length)`, static; None: the stretch begins
        where a retrieval or, with inserted landmarks, a chunk does.
      count: leading tokens that are real, the rest is filling; None: all.

    Returns:
      The stream, a row per token, and the carry after its real tokens.
    """
    marks = self._marks(hidden.shape[1], reuse)
    ask, chosen, after = reuse or 0, None, []
    if marks is not None:
      hidden = marks.unpack(hidden)
      ask = marks.first + 1 if asks_ahead(self.cfg) else 0
    for group, before in zip(self.groups, carry, strict=True):
      hidden, one, chosen = group(
        hidden,
        memory,
        before,
        position=stream_length(self.cfg, position),
        ask=min(ask, hidden.shape[1]),
        count=_rows(marks, count),
        chosen=chosen,
      )
      after.append(one)
    return hidden if marks is None else marks.drop(hidden), tuple(after)

  def _marks(self, length: int, reuse: int | None = None) -> Marks | None:
    """Landmarks to insert into a stretch, if the model does."""
    every = mark_every(self.cfg)
    if not every:
      return None
    reuse = self.num_reused(0, length) if reuse is None else reuse
    return Marks(length, reuse, every)

  def _embed(
    self, tokens: Tokens, marks: Marks | None
  ) -> Float[Array, "B U D"]:
    x = self.embedding(tokens)
    return x if marks is None else marks.insert(x, self.mark[...])

  def _noise(self, key: PRNGKey | None, group: int) -> PRNGKey | None:
    if key is None or self.cfg.hsa.selection_noise == "none":
      return None
    return jax.random.fold_in(key, group)


def _rows(
  marks: Marks | None, count: int | jax.Array | None
) -> int | jax.Array | None:
  """Rows of the stream that the real tokens of a stretch are."""
  return count if marks is None or count is None else marks.rows_of(count)
