"""What both services and the workstation's command share; imports neither Starlette nor torch."""
