"""Programs that stand in for TensorRT-LLM's where it is not installed, and what they write.

They read every flag as the contract sheet has it, read real checkpoints and do the real arithmetic of
splitting and rounding, in NumPy; only what they call an engine is no TensorRT plan but the weights, for the
CPU engines. All that they write says `"runtime": "emulated"`.
"""
