//! The integration tests, a file a theme.

mod gguf_writer;
mod support;

mod cli;
mod gguf;
mod limits;
mod memory;
mod models;
mod passes;
mod plans;
mod programs;
mod steps;
mod tokenizer;
