//! The integration tests, a file a theme.

mod support;

mod models;
mod passes;
