"""What can be wrong or slow with an environment: it is played with random actions and looked at."""
