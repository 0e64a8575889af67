"""The console: what people look at in a browser."""
