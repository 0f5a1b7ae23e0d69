"""A dense model of 8B parameters in the spirit of HSA-UltraLong (arXiv 2511.23319).

Run:      python train.py --config=configs/hsa_8b.py --workdir=runs/hsa_8b
Pod:      v6e-256
Estimate: python -m hsa_jax.cli.estimate --config=configs/hsa_8b.py --topology=v6e:16x16
Expect:   not measured here: it needs a pod and a large corpus.

Known:    the published model of this size has experts (8B, 1B of them active);
          this one is dense. What both share is listed in configs/hsa_1b.py.
Unknown:  shape, vocabulary, steps and batch are assumptions of this project; the
          peak learning rate is that of the published model of 8B.
Parameters are split over all 256 chips (fsdp).
Give a token store of your own: `--config.data.store=DIR`, and its tokenizer.
"""

from hsa_jax import config as c


def get_config():
  hsa = c.HsaConfig(
    num_groups=4,
    chunk_size=64,
    top_k=16,
    num_memory_heads=2,
    landmark_dim=2_048,
    encoder_layers=1,
    encoder_mlp_dim=12_288,
    weighting=c.Weighting.SOFTMAX,
    residual=c.Residual.BYPASS,
    block_window=True,
  )
  model = c.ModelConfig(
    vocab_size=65_536,
    embed_dim=4_096,
    num_lower_layers=16,
    num_upper_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=12_288,
    window_size=513,
    tie_embeddings=False,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    hsa=hsa,
  )
  stage = c.StageConfig(
    name="pretrain", num_steps=120_000, seq_len=8_192, batch_size=512
  )
  return c.to_config_dict(
    c.Config(
      model=model,
      data=c.DataConfig(corpus="files", store="data/corpus", stages=(stage,)),
      optimizer=c.OptimizerConfig(
        learning_rate=3.87e-4, warmup_steps=2_000, weight_decay=0.01
      ),
      train=c.TrainConfig(
        grad_accum_steps=2, checkpoint_every=1_000, eval_every=1_000
      ),
      mesh=c.MeshConfig(data=1, fsdp=-1),
    )
  )
