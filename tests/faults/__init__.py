"""What happens when something dies, freezes, fills up or disagrees about the time: real processes, real faults."""
