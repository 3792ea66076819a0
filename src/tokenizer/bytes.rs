//! The bytes that single tokens stand for.

use super::Tokenizer;
use std::{collections::HashMap, sync::LazyLock};

/// How byte-level BPE spells bytes: each as one printable character. The printable ones of Latin-1 are spelt
/// as themselves, the others as the characters from U+0100 on.
pub(super) fn spelt(bytes: &[u8]) -> String {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = |below: u8| (0..below).filter(|byte| !is_printable(byte)).count() as u32;
    let spell = |byte: &u8| match is_printable(byte) {
        true => char::from(*byte),
        false => char::from_u32(0x100 + others(*byte)).expect("within Latin Extended-A"),
    };
    bytes.iter().map(spell).collect()
}

/// The bytes by the characters that spell them.
static BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255).map(|byte| (spelt(&[byte]).chars().next().expect("one"), byte)).collect());

impl Tokenizer {
    /// The bytes that a token stands for within a text. Special tokens are spelt out. They may be a part of a
    /// character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        if let Some(byte) = self.byte(id) {
            return vec![byte];
        }
        if !self.is_added(id)
            && self.is_byte_level()
            && let Some(token) = self.inner.id_to_token(id)
            && let Some(bytes) = token.chars().map(|c| BYTES.get(&c).copied()).collect()
        {
            return bytes;
        }
        // A text's first token is decoded in another way: some leave out its blank.
        let Some(anchor) = self.anchor() else { return self.decode(&[id], false).into_bytes() };
        let (before, both) = (self.decode(&[anchor], false), self.decode(&[anchor, id], false));
        both.strip_prefix(&before).map_or_else(|| self.decode(&[id], false), str::to_owned).into_bytes()
    }

    /// Whether tokens spell bytes by [`spelt`].
    fn is_byte_level(&self) -> bool {
        // The blank is the character most surely there.
        self.id(&spelt(b" ")).is_some_and(|blank| self.decode(&[blank], false) == " ")
    }

    /// An ordinary token with a text, to decode others after it.
    fn anchor(&self) -> Option<u32> {
        let ids = self.encode("a", false).ok()?;
        ids.last().copied().filter(|id| !self.is_special(*id))
    }
}
