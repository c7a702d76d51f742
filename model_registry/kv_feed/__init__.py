"""KV feeds: who reads an engine's KV events, and what it tells the other gateway processes of them."""
