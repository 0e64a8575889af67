"""What every page of the console tells the browser not to do."""

import secrets
from collections.abc import Mapping

NONCE_BYTES = 16


def new_nonce() -> str:
    """Marks the inline scripts of one answer as the server's own."""
    return secrets.token_urlsafe(NONCE_BYTES)


def security_headers(nonce: str) -> Mapping[str, str]:
    """Headers of an answer whose inline scripts carry `nonce`.

    Styles may stand in the page: starlette-admin's templates have style attributes, which no nonce covers.
    """
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
