"""Names of images as people write them: "alpine" is "docker.io/library/alpine:latest"."""


def same_image(one: str, other: str) -> bool:
    """Tell whether two names mean the same image."""
    return _full(one) == _full(other)


def _full(name: str) -> str:
    domain, slash, rest = name.partition("/")
    # As docker tells a registry from a user: by a dot, a port, or "localhost".
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, rest = "docker.io", name
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    if ":" not in rest.rpartition("/")[2] and "@" not in rest:
        rest += ":latest"
    return f"{domain}/{rest}"
