"""Numbers from one pass of the encoders."""
