"""Policy: tenant files become grants. Pure once loaded."""
