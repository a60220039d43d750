"""An HTTP endpoint that answers pictures by vote."""
