//! wgpt runs decoder-only transformers, from GPT-1 to LLaMA and LLaVA (which takes images), on any GPU with
//! Vulkan, Metal or DX12, through wgpu and WGSL compute shaders. Without a GPU, it runs them on the CPU.
//!
//! ```
//! use wgpt::{LanguageModel, Request, sampling::Sampling};
//!
//! # fn main() -> wgpt::error::Result<()> {
//! // LanguageModel::open takes a folder, a .gguf file or a name on the Hub; this one is built in.
//! let mut model = LanguageModel::built_in()?;
//! let request = Request { sampling: Sampling::GREEDY, max_tokens: 20, ..Request::default() };
//! let mut story = String::new();
//! for piece in model.generate("Once upon a time", &request)? {
//!     story += &piece?;
//! }
//! assert!(story.starts_with(", there was a little girl"));
//!
//! // The turns of a conversation stay in the KV cache.
//! let mut conversation = model.chat(request)?;
//! let answer: String = conversation.say("Who is Lily?")?.collect::<Result<_, _>>()?;
//! assert!(!answer.is_empty() && conversation.said.len() == 2);
//! # Ok(())
//! # }
//! ```
//!
//! Most programs only need [`LanguageModel`]. A [`Request`] says how to generate a text.
//! [`language_model::Text`] and [`language_model::Answer`] are iterators over its pieces. [`image::Image`] is
//! an image for a model that takes images. [`backend::Device::from_wgpu`] runs a model on an application's
//! own wgpu device. tests/examples/ has a program for each.
//!
//! # The map
//!
//! Data flows one way, and the modules below are in that order:
//!
//! ```text
//! checkpoint ─► Architecture + Weights ─► decoder() ─► Plan ─► Device::prepare ─► submit(Step), …
//!                                                             └► cpu: the same plan, the kernels' own Rust
//! ```
//!
//! A **plan** is the list of **passes** from token ids to logits. `decoder` writes one for each phase
//! (prefill and decode), for every family alike. Each pass is a **kernel** with its operands: WGSL
//! **programs** for a GPU, and the same computation in Rust, which is its definition. A **step** says which
//! tokens run. Two small executors run plans. While tokens are generated, nothing is created or compiled.

// The errors that users see, and exit codes.
pub mod error;
// The architecture of a model, as data.
pub mod architecture;
// Reads JSON files, field by field.
pub mod config;
// Reads files, and names what lies in their place.
mod files;
// config.json → architecture and tensor names, one file per family.
pub mod families;
// Models by name, downloaded from the Hub into its cache.
#[cfg(feature = "hub")]
pub mod hub;
// What generation_config.json recommends.
pub mod defaults;
// Opens a model's files without loading the weights.
pub mod model;
// Text ↔ ids.
pub mod tokenizer;
// Image files → the pixels that a model takes.
#[cfg(feature = "images")]
pub mod image;
// Checkpoints, storage formats, matrices of weights, and adapters of these.
pub mod weights;
// A model's files → a quantised GGUF file.
pub mod quantize;
// What a device can do, as far as plans and programs depend on it.
pub mod capabilities;
// Which of what an architecture can say is computed.
mod computed;
// Architecture + weights → plans, for the decoder and for the vision encoder.
pub mod decoder;
// Plans, and their listing.
pub mod plan;
// Logits → the next token, and the probability of a given one.
pub mod sampling;
// The input of a model: tokens, images that take the place of some, and the scales of adapters.
pub mod prompt;
// The input of one run of a plan: tokens, positions, block tables.
pub mod step;
// The amount of work in a step, and its phase.
pub mod workload;
// The buffers that plans refer to.
pub mod buffers;
// The interface of a kernel: operands, programs, cost, definition.
pub mod kernel;
// How the KV cache stores numbers.
pub mod kv_format;
// The kernels, one file each.
pub mod kernels;
// Programs → WGSL text.
pub mod shader;
// The contents of the buffers on the CPU.
pub mod memory;
// SIMD, products of bytes, and threads for the kernels' fast code on the CPU.
pub mod simd;
// A model's programs in the forms that the compilers of Vulkan, DX12, Metal and browsers take.
pub mod programs;
// Backends, which run plans: the CPU, or a GPU through wgpu.
pub mod backend;
// The blocks of the KV cache: which sequences hold them, and which can be shared.
pub mod cache_blocks;
// Sequences → steps, and their results → events.
pub mod scheduler;
// Schedule → run → commit, for all sequences.
pub mod engine;
// Conversations ↔ prompts.
pub mod chat;
// Hidden states → the embedding of a text.
pub mod embedding;
// Text generation and conversations.
pub mod language_model;
// The shapes of well-known models, with random weights.
pub mod shapes;
// Measures tokens per second and memory traffic.
pub mod bench;
// Checks that a device computes what the kernels define.
pub mod verify;
// The HTTP server.
#[cfg(feature = "serve")]
pub mod serve;
// The command line.
#[cfg(feature = "cli")]
pub mod cli;
mod demo;

pub use language_model::{LanguageModel, Request};
