"""Streams as RTSP addresses: a process of its own speaks to the clients, and is given packets while somebody looks."""
