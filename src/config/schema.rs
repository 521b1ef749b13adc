//! The JSON schema of the file.
