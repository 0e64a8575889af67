"""Protobuf ⇄ domain values, as pure functions. Nothing outside this package sees a generated message."""
