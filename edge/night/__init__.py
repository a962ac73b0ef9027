"""The night shift as the daemon sees it: frames that are kept, a shift as files, its process. No torch here."""
