"""WebRTC for the live page and the WHIP sink: a stream is encoded once, and each receiver has a track of its own."""
