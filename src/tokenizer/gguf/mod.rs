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

/// How byte-level BPE spells bytes: each as one printable character. The printable ones of Latin-1 are spelt
/// as themselves, the others as the characters from U+0100 on.
fn spelt(bytes: &[u8]) -> String {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = |below: u8| (0..below).filter(|byte| !is_printable(byte)).count() as u32;
    let spell = |byte: &u8| match is_printable(byte) {
        true => char::from(*byte),
        false => char::from_u32(0x100 + others(*byte)).expect("within Latin Extended-A"),
    };
    bytes.iter().map(spell).collect()
}
