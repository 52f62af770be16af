"""Films of policies, and policies in a window: pictures from environments, drawings, encoders."""
