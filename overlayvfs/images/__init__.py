"""Layers as shipped: OCI image layouts, docker archives, root file system tars."""
