//! Threads: how many workers, and how they start.
