"""OpenAI's `/v1/files` and `/v1/batches`: the API, and the worker that runs rows in spare capacity."""
