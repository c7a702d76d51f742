"""OpenAI's wire format: bytes to parsed requests, values to answer bytes. Pure: no I/O, no clock."""
