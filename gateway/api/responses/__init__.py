"""OpenAI's Responses API, without what needs a store: requests to chat and answers to responses."""
