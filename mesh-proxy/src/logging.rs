//! Logging of the process.
