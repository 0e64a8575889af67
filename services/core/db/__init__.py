"""PostgreSQL: tables, sessions, and one module per noun whose functions take a Session and return values."""
