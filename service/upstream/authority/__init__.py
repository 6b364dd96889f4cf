"""Our own session authority: ChatKit sessions with upstream's contract, kept in Redis."""
