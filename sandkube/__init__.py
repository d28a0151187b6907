"""Sandkube: a Kubernetes node built bit for bit from pinned sources, booted in gVisor."""
