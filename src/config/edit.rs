//! Edits in place that keep comments, order and formatting.
