//! Whether and when a run is followed by another.
