//! Tokenizers as GGUF metadata stores them: `gpt2` is byte-level BPE, `llama` is SentencePiece with scores.

mod read;
mod write;

pub use write::write;

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
/// The token that stands for unknown text.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
/// A token that users added.
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const LLAMA3: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// How byte-level BPE splits a text into words, by llama.cpp's name of the pre-tokenizer: its published
/// regular expressions, applied in order.
const PRE_TOKENIZERS: [(&str, &[&str]); 6] = [
    ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ("gpt-2", &[GPT2]),
    ("smollm", &[r"\p{N}", GPT2]),
    ("llama-bpe", &[LLAMA3]),
    // SmolLM3's pre-tokenizer.
    ("smaug-bpe", &[LLAMA3]),
    (
        "qwen2",
        &[concat!(
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
    ),
];
