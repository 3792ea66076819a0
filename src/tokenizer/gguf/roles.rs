//! The tokens that play a role in a GGUF file.

use crate::{error::Result, weights::Gguf};

/// What llama.cpp takes them to be where the file of a SentencePiece vocabulary does not say, as those of
/// before these keys do not.
const OF_SENTENCE_PIECE: [(&str, u32); 3] = [("unknown", 0), ("bos", 1), ("eos", 2)];

/// The id of the token that plays this role, such as `bos`.
///
/// # Errors
/// Of the kind Model where the file names it by something else than a number.
pub fn role(gguf: &Gguf, role: &str) -> Result<Option<u32>> {
    let is_sentence_piece = gguf.string("tokenizer.ggml.model")? == Some("llama");
    let usual = OF_SENTENCE_PIECE.iter().find(|(name, _)| is_sentence_piece && *name == role);
    Ok(gguf.id(&format!("tokenizer.ggml.{role}_token_id"))?.or(usual.map(|(_, id)| *id)))
}
