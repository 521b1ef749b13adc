//! Watches the files of a configuration.
