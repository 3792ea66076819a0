//! The integration tests, one file per topic.

mod support;

mod adapters;
mod chat;
mod cli;
mod compilers;
mod examples;
mod gguf;
mod gguf_tokenizers;
mod hub;
mod images;
mod insight;
mod language_model;
mod limits;
mod memory;
mod models;
mod passes;
mod plans;
mod programs;
mod quantize;
mod sampling;
mod smollm2;
mod schedules;
mod serve;
mod start;
mod steps;
mod tokenizer;
mod unread;
mod windows;
mod worker;
