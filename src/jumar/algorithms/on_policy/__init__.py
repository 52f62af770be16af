"""The on-policy family: one shared update, its parts, and each method as a choice of them."""
