"""What tests share: signing keys, tenant files, real processes."""
