"""Talking to model servers: schema adapters, transports, tokenizers and chat templates."""
