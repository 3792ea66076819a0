//! Families as GGUF files hold them: metadata and the names that llama.cpp gives tensors. LLaMA's rows of q and k are in our
//! order there already, Qwen's as Hugging Face has them; GPT-2's matrices lie as Linear ones.

mod read;
mod write;

pub use read::read;
pub use write::{keeps_order, names, write};
