//! Families as GGUF files describe them: metadata keys, and llama.cpp's names for tensors. Compared with
//! Hugging Face checkpoints, GGUF files of LLaMA and SmolLM3 already store the rows of q and k in the order
//! that the shaders use, those of Qwen keep Hugging Face's order, and GPT-2's matrices are stored as Linear
//! layers' are, not transposed.

mod keys;
mod read;
mod write;

pub use read::read;
pub use write::{keeps_order, names, write};
