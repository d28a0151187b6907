"""Registries of OCI artifacts: what they are shown, and whose certificates count."""
