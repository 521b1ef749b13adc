//! Every unsafe block of the project.
