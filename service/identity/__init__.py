"""Identity: a credential becomes a principal."""
