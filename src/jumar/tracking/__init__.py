"""The numbers of runs sent to trackers, by a process beside the one that trains."""
