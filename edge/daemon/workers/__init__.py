"""Several processes under one daemon: streams are dealt to workers, one that is lost costs only its own streams."""
