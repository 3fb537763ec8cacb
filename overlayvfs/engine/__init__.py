"""The union: the kernel's overlayfs semantics over layer protocols, raising OSError only."""
