"""HTTP in and out: the OpenAI API, authentication, streaming and the admin API."""
