"""Triton Python-backend models that stand in for TensorRT-LLM, and the repositories that hold them."""
