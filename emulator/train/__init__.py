"""Making the CPU engines' models: corpus, tokenizer, and training in NumPy."""
