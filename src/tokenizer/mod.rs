//! Text → token ids and back, through the `tokenizers` crate, and a stream of text that never splits a
//! character.

mod gguf;

pub use gguf::{ends as gguf_ends, write as write_gguf};

use crate::error::{Error, Result};
use std::{collections::BTreeSet, path::Path};
use tokenizers::{
    AddedToken, Tokenizer as HfTokenizer, decoders::bpe::BPEDecoder, decoders::byte_level::ByteLevel,
    models::bpe::BPE, normalizers::bert::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};

/// A model's tokenizer.
pub struct Tokenizer(HfTokenizer);

impl Tokenizer {
    /// Opens a folder's tokenizer.json, or its vocab.json and merges.txt, which are read as `family` defines
    /// them.
    ///
    /// # Errors
    /// Of the kind Model where a file is missing, damaged or not supported.
    pub fn open(folder: &Path, family: &str) -> Result<Self> {
        let [json, vocab, merges] = ["tokenizer.json", "vocab.json", "merges.txt"].map(|n| folder.join(n));
        if json.is_file() {
            let bytes = std::fs::read(&json)
                .map_err(|e| Error::model(format!("{} cannot be read: {e}", json.display())).because(e))?;
            return Self::from_json(&json.display().to_string(), &bytes);
        }
        if !vocab.is_file() || !merges.is_file() {
            return Err(Error::model(format!(
                "{} holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt",
                folder.display()
            )));
        }
        let built = match family {
            "openai-gpt" => gpt1(&vocab, &merges),
            // These families split text into words in their own ways, which only tokenizer.json describes.
            "qwen2" | "qwen3" | "smollm3" => {
                return Err(Error::model(format!(
                    "{} holds vocab.json and merges.txt, but of {family} the tokenizer.json is needed: fetch \
                     that too",
                    folder.display()
                )));
            }
            _ => gpt2(&vocab, &merges),
        };
        let (vocab, merges) = (vocab.display(), merges.display());
        let built = built
            .map(Self)
            .map_err(|e| Error::model(format!("{vocab} and {merges} are not a tokenizer: {e}")).because(e))?;
        match built.vocab_size() {
            0 => Err(Error::model(format!("{vocab} is not a vocabulary: it gives no text an id"))),
            _ => Ok(built),
        }
    }

    /// Reads a tokenizer.json. `name` is what error messages call it.
    ///
    /// # Errors
    /// Of the kind Model where it does not describe a tokenizer.
    pub fn from_json(name: &str, json: &[u8]) -> Result<Self> {
        let mut tokenizer = HfTokenizer::from_bytes(json)
            .map_err(|e| Error::model(format!("{name} is not a tokenizer: {e}")).because(e))?;
        // Training settings do not apply here: a prompt is neither padded nor truncated.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("no truncation is always possible");
        Ok(Self(tokenizer))
    }

    /// A text's token ids. Special tokens that the text spells out become their ids. `add_special` adds the
    /// special tokens that the tokenizer puts around every text.
    ///
    /// # Errors
    /// Of the kind Request where the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.0.encode_fast(text, add_special);
        encoding
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| Error::request(format!("the text cannot be tokenized: {e}")).because(e))
    }

    /// The text of token ids. Special tokens are spelt out, or left out with `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.0.decode(ids, skip_special).unwrap_or_default()
    }

    /// Whether an id is a special token, which stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Whether a token is a single byte (such as `<0x0A>`, from SentencePiece's byte fallback).
    fn is_byte(&self, id: u32) -> bool {
        let spelt = self.0.id_to_token(id);
        spelt.is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'))
    }

    /// The ids of all tokens whose text, decoded alone, contains any of the given texts.
    pub fn with_any(&self, texts: &[&str]) -> BTreeSet<u32> {
        let all = 0..self.vocab_size() as u32;
        let holds = |id: &u32| {
            let text = self.decode(&[*id], false);
            texts.iter().any(|wanted| !wanted.is_empty() && text.contains(wanted))
        };
        all.filter(holds).collect()
    }

    /// The number of token ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.0.get_vocab_size(true)
    }

    /// A stream that turns the ids after a prompt into text.
    pub fn stream(&self, prompt: &[u32]) -> TextStream<'_> {
        // The prompt's last ids are decoded as context, so that the first generated token gets the right
        // spacing. A character takes at most 8 ids.
        let context = prompt[prompt.len().saturating_sub(8)..].to_vec();
        TextStream { tokenizer: self, from: 0, read: context.len(), ids: context }
    }
}

/// GPT-2's tokenizer, byte-level BPE, from vocab.json and merges.txt.
fn gpt2(vocab: &Path, merges: &Path) -> tokenizers::Result<HfTokenizer> {
    let model = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    add_special(&mut tokenizer, "<|endoftext|>")?;
    Ok(tokenizer)
}

/// GPT-1's tokenizer: BPE on lower-case words whose last piece ends in `</w>`.
fn gpt1(vocab: &Path, merges: &Path) -> tokenizers::Result<HfTokenizer> {
    let model = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy())
        .unk_token("<unk>".to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(BPEDecoder::new("</w>".to_owned())));
    add_special(&mut tokenizer, "<unk>")?;
    Ok(tokenizer)
}

/// Marks a token of the vocabulary as special, so that texts can spell it out.
fn add_special(tokenizer: &mut HfTokenizer, token: &str) -> tokenizers::Result<()> {
    if tokenizer.token_to_id(token).is_some() {
        tokenizer.add_special_tokens([AddedToken::from(token, true)])?;
    }
    Ok(())
}

/// Turns a stream of token ids into whole characters.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Positions in `ids` where the text returned last begins and ends. The ids from `from` to `read` are
    /// decoded again as context for the next ones.
    from: usize,
    read: usize,
}

impl TextStream<'_> {
    /// Adds an id and returns the text that it completes, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        // A run of byte tokens is decoded as a whole: one invalid byte turns all of it into U+FFFD. So wait
        // for its end.
        if self.tokenizer.is_byte(id) {
            return String::new();
        }
        let text = self.pending();
        // An incomplete character decodes as U+FFFD: wait for the rest of it.
        if text.is_empty() || text.ends_with('\u{FFFD}') {
            return String::new();
        }
        self.from = self.read;
        self.read = self.ids.len();
        text
    }

    /// The remaining text, once no more ids come.
    pub fn finish(&self) -> String {
        self.pending()
    }

    fn pending(&self) -> String {
        let before = self.tokenizer.decode(&self.ids[self.from..self.read], true);
        let all = self.tokenizer.decode(&self.ids[self.from..], true);
        all.strip_prefix(&before).map_or_else(|| all[common(&all, &before)..].to_owned(), str::to_owned)
    }
}

/// The length in bytes of the longest common prefix, in whole characters.
fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}
