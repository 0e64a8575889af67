"""What happens around a model: volumes to what it takes, and its answer to masks in the right place."""
