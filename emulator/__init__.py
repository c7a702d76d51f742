"""CPU engines behind the exact tensor schemas of TensorRT-LLM's Triton models."""
