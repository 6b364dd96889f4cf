"""Killing the real process at random moments, and the accounts that must balance afterwards."""
