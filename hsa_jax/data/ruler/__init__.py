"""The thirteen tasks of RULER as streams of tokens, at any length.

Facts of the protocol (templates, counts, order of things) follow NVIDIA's
public benchmark (arXiv 2404.06654, Apache-2.0); the code is this project's.
"""
