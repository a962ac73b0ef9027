"""The GPU below the engine: one context, pinned memory, streams and graphs, and our own kernels. Imported lazily."""
