//! Tokenizers as GGUF metadata stores them: `gpt2` is byte-level BPE, `llama` is SentencePiece with scores.

mod ends;
mod pre_tokenizers;
mod read;
mod roles;
mod write;

pub use ends::ends;
use pre_tokenizers::PreTokenizer;
pub use roles::role;
pub use write::write;

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
/// The token that stands for unknown text.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
/// A token that users added.
const USER_DEFINED: i32 = 4;
/// A token without a text.
const UNUSED: i32 = 5;
const BYTE: i32 = 6;
