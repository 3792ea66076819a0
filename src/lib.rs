//! wgpt runs decoder-only transformers, GPT-1 to LLaMA and LLaVA, which sees images, on any GPU that Vulkan,
//! Metal or DX12 reaches, through wgpu and WGSL compute shaders, and on the CPU where there is none.
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
//! // Turns of a conversation stay in the cache.
//! let mut conversation = model.chat(request)?;
//! let answer: String = conversation.say("Who is Lily?")?.collect::<Result<_, _>>()?;
//! assert!(!answer.is_empty() && conversation.said.len() == 2);
//! # Ok(())
//! # }
//! ```
//!
//! [`LanguageModel`] is all that most programs need: [`Request`] says how a text is made,
//! [`language_model::Text`] and [`language_model::Answer`] are iterators of its pieces, [`image::Image`] is a
//! picture for a model that sees, and a model runs on an application's own wgpu device through
//! [`backend::Device::from_wgpu`]. tests/examples/ has a program for each.
//!
//! # The map
//!
//! Data flows one way, and the modules below stand in that order:
//!
//! ```text
//! checkpoint ─► Architecture + Weights ─► decoder() ─► Plan ─► Device::prepare ─► run(Step), run(Step), …
//!                                                             └► cpu: the same plan, the kernels' own Rust
//! ```
//!
//! A **plan** is the list of **passes** from token ids to logits; `decoder` writes one for each shape of work
//! (prefill, decode), for every family alike. Each pass is a **kernel** with its operands: WGSL **programs**
//! for a GPU, and the same computation in Rust, which is its definition. A **step** says which tokens run.
//! Two small executors run plans; nothing is created or compiled while tokens flow.

// The error that reaches users, and exit codes.
pub mod error;
// What differs between families, as data.
pub mod architecture;
// JSON files, field by field.
pub mod config;
// config.json → architecture and tensor names, a file a family.
pub mod families;
// Models by name: fetched from the Hub into its cache.
#[cfg(feature = "hub")]
pub mod hub;
// A model's files, read but not loaded.
pub mod model;
// Text ↔ ids.
pub mod tokenizer;
// Image files → the pixels that a model looks at.
#[cfg(feature = "images")]
pub mod image;
// Checkpoints, storage formats, and the matrices made of them.
pub mod weights;
// A model's files → a quantised GGUF file.
pub mod quantize;
// What a device can do, as far as the above and below depend on it.
pub mod capabilities;
// Architecture + weights → plans: the one decoder, and the tower that sees images.
pub mod decoder;
// Plans and their listing.
pub mod plan;
// Logits → the next token, and how probable a given one is.
pub mod sampling;
// What a model reads: tokens, and images in the place of some.
pub mod prompt;
// What one run takes in: tokens, positions, cache tables.
pub mod step;
// How much a step asks for, and through which plan.
pub mod workload;
// The buffers that plans refer to.
pub mod buffers;
// What a pass is: operands, programs, cost, definition.
pub mod kernel;
// The passes, a file a kernel.
pub mod kernels;
// Programs → WGSL text.
pub mod shader;
// The buffers' contents on the CPU.
pub mod memory;
// SIMD, products of bytes and threads for the kernels' fast CPU forms.
pub mod simd;
// A model's programs as the compilers of Vulkan, DX12, Metal and browsers get them.
pub mod programs;
// Where plans run: the CPU, or a GPU through wgpu.
pub mod backend;
// The cache's blocks: who holds them, and which can be shared.
pub mod cache;
// Sequences → steps, and what comes of these.
pub mod scheduler;
// Schedule → run → commit, for all sequences.
pub mod engine;
// Conversations ↔ prompts.
pub mod chat;
// All of it on texts: continuations, conversations.
pub mod language_model;
// Well-known models by shape alone, with random weights.
pub mod shapes;
// Tokens per second, and the bandwidth that they are held against.
pub mod bench;
// Whether a device computes as the kernels are defined.
pub mod verify;
// The command line.
#[cfg(feature = "cli")]
pub mod cli;
mod demo;

pub use language_model::{LanguageModel, Request};
