//! The native backend: runs are children of the daemon.
