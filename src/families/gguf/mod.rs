//! Families as GGUF files hold them: architectures `llama` and `gpt2`, metadata and the names that llama.cpp gives
//! tensors. Rows of q and k are in our order there already, and GPT-2's matrices lie as Linear ones.

mod read;
mod write;

pub use read::read;
pub use write::{names, write};
