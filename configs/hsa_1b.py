"""A dense model of 1.4B parameters in the spirit of HSA-UltraLong (arXiv 2511.23319).

Run:      python train.py --config=configs/hsa_1b.py --workdir=runs/hsa_1b
Pods:     --config=configs/hsa_1b.py:v5p-128 (64 chips, the default), or :v5e-512 (two slices of 256)
Estimate: python -m hsa_jax.cli.estimate --config=configs/hsa_1b.py --topology=v5p:4x4x4
          python -m hsa_jax.cli.estimate --config=configs/hsa_1b.py:v5e-512 --topology=v5e:16x16 --slices=2
Expect:   not measured here: it needs a pod and a large corpus.

Known:    of the published models: chunks of 64, encoder with a CLS landmark,
          softmax weights, normalised queries and keys, no positions in the
          memory, a window of 512 at first, bypassing residual, a window
          sublayer before each read; AdamW 0.9 / 0.95, weight decay 0.01, clipping 1,
          peak rate 4.96e-4 and 5.2M tokens a step for their dense model of 0.5B.
Unknown:  their widths, depths, heads, groups and vocabulary. They train on 16K
          tokens a row; rows of 8K, the shape below, its 4.2M tokens a step and
          its steps are assumptions of this project. Their warm-up (K covering
          all chunks, self-copies) and longer later stages are not in it.
Parameters are split over the chips of a slice (fsdp), slices share the batch.
Give a token store of your own: `--config.data.store=DIR`, and its tokenizer.
"""

from hsa_jax import config as c

PODS = {
  "v5p-128": (c.MeshConfig(data=1, fsdp=-1), 4),
  "v5e-512": (c.MeshConfig(data=2, fsdp=-1), 1),
}  # mesh, micro-batches of a step


def get_config(pod="v5p-128"):
  mesh, parts = PODS[pod]
  hsa = c.HsaConfig(
    num_groups=2,
    chunk_size=64,
    top_k=16,
    num_memory_heads=1,
    landmark_dim=1024,
    encoder_layers=1,
    encoder_mlp_dim=5_632,
    weighting=c.Weighting.SOFTMAX,
    residual=c.Residual.BYPASS,
    block_window=True,
  )
  model = c.ModelConfig(
    vocab_size=65_536,
    embed_dim=2_048,
    num_lower_layers=12,
    num_upper_layers=12,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=5_632,
    window_size=513,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    hsa=hsa,
  )
  stage = c.StageConfig(
    name="pretrain", num_steps=50_000, seq_len=8_192, batch_size=512
  )
  return c.to_config_dict(
    c.Config(
      model=model,
      data=c.DataConfig(corpus="files", store="data/corpus", stages=(stage,)),
      optimizer=c.OptimizerConfig(
        learning_rate=4.96e-4, warmup_steps=2_000, weight_decay=0.01
      ),
      train=c.TrainConfig(
        grad_accum_steps=parts, checkpoint_every=1_000, eval_every=1_000
      ),
      mesh=mesh,
    )
  )
