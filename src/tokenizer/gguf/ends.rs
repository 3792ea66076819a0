//! The tokens that end an answer, by the file's ids and by llama.cpp's list of texts: many files name only
//! one of them, or store it as ordinary text.

use super::role;
use crate::{error::Result, weights::Gguf};

/// The texts of tokens that end an answer wherever a vocabulary has them. llama.cpp's list has `</s>` too,
/// but Qwen's vocabulary has that as ordinary text.
const ENDS: [&[u8]; 19] = [
    b"<|eot_id|>",
    b"<|eom_id|>",
    b"<|im_end|>",
    b"<|end|>",
    b"<|return|>",
    b"<|call|>",
    b"<|calls|>",
    b"<|flush|>",
    b"<end_of_turn>",
    b"<|endoftext|>",
    b"<|end_of_text|>",
    b"<eos>",
    b"[EOS]",
    b"<EOT>",
    b"_<EOT>",
    b"[EOT]",
    b"[e~[",
    b"<end_of_utterance>",
    "<｜end▁of▁sentence｜>".as_bytes(),
];

/// The ids, in the order of the vocabulary, of the tokens whose texts end an answer.
pub fn named(tokens: &[&[u8]]) -> Vec<usize> {
    let has = |text: &str| tokens.contains(&text.as_bytes());
    // Where answers have several parts, <|end|> ends only a part.
    let has_parts =
        (has("<|return|>") && has("<|call|>")) || (has("<|flush|>") && (has("<|call|>") || has("<|calls|>")));
    let ends = |token: &[u8]| ENDS.contains(&token) && !(has_parts && token == b"<|end|>");
    tokens.iter().enumerate().filter(|(_, token)| ends(token)).map(|(id, _)| id).collect()
}

/// The ids of all tokens that end an answer, first those that the file names.
///
/// # Errors
/// Of the kind Model where the file's tokens are no list of texts.
pub fn ends(gguf: &Gguf) -> Result<Vec<u32>> {
    let by_role = ["eos", "eot", "eom"].map(|name| role(gguf, name));
    let mut ends: Vec<u32> = by_role.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
    let tokens = gguf.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    for id in named(&tokens) {
        let id = id as u32;
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    Ok(ends)
}
