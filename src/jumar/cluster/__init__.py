"""Several machines: a Ray that a command starts for itself, or a cluster that it joins."""
