"""A database's address without its secrets, for people and for logs."""


def public_address(url: str) -> str:
    """Without user, password and parameters, also where it is so wrong that nobody knows which part is which."""
    scheme, is_url, rest = url.partition("://")
    if not is_url or scheme == "sqlite":
        return url
    if "password" in rest.lower():
        return f"{scheme}://…"
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
