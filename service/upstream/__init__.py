"""Who issues sessions: the wire contract, OpenAI over HTTP, our own authority."""
