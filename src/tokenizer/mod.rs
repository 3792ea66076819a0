//! Text to token ids and back, through the `tokenizers` crate; and a stream that never prints half a character.

mod gguf;

pub use gguf::write as write_gguf;

use crate::error::{Error, Result};
use std::{collections::BTreeSet, path::Path};
use tokenizers::{
    AddedToken, Tokenizer as HfTokenizer, decoders::bpe::BPEDecoder, decoders::byte_level::ByteLevel,
    models::bpe::BPE, normalizers::bert::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};

/// A model's tokenizer.
pub struct Tokenizer(HfTokenizer);

impl Tokenizer {
    /// A folder's tokenizer.json, or its vocab.json and merges.txt, read as the family does.
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
            // These cut texts into words in ways of their own, which only tokenizer.json says.
            "qwen2" | "qwen3" | "smollm3" => {
                return Err(Error::model(format!(
                    "{} holds vocab.json and merges.txt, but of {family} the tokenizer.json is needed: fetch that too",
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

    /// The tokenizer that a tokenizer.json describes; `name` is what errors call it.
    pub fn from_json(name: &str, json: &[u8]) -> Result<Self> {
        let mut tokenizer = HfTokenizer::from_bytes(json)
            .map_err(|e| Error::model(format!("{name} is not a tokenizer: {e}")).because(e))?;
        // What a training run once set is no business of ours: a prompt is neither cut nor padded.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("no truncation is always possible");
        Ok(Self(tokenizer))
    }

    /// A text's ids. Special tokens that the text names are recognised; `add_special`: those that the tokenizer
    /// puts around every text are added.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.0.encode_fast(text, add_special);
        encoding
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| Error::request(format!("the text cannot be tokenized: {e}")).because(e))
    }

    /// The text of some ids, with the special tokens spelt out or left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.0.decode(ids, skip_special).unwrap_or_default()
    }

    /// Whether an id is a special token, which is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Whether an id is a single byte of text (`<0x0A>`, the byte fallback of SentencePiece).
    fn is_byte(&self, id: u32) -> bool {
        let spelt = self.0.id_to_token(id);
        spelt.is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'))
    }

    /// The ids whose text, each by itself, holds any of these.
    pub fn with_any(&self, texts: &[&str]) -> BTreeSet<u32> {
        let all = 0..self.vocab_size() as u32;
        let holds = |id: &u32| {
            let text = self.decode(&[*id], false);
            texts.iter().any(|wanted| !wanted.is_empty() && text.contains(wanted))
        };
        all.filter(holds).collect()
    }

    /// How many ids it gives out, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.0.get_vocab_size(true)
    }

    /// A stream of the text that follows a prompt.
    pub fn stream(&self, prompt: &[u32]) -> TextStream<'_> {
        // As many of the prompt's last ids as a character can be made of, so that the first generated one is
        // spaced as within a text.
        let context = prompt[prompt.len().saturating_sub(8)..].to_vec();
        TextStream { tokenizer: self, from: 0, read: context.len(), ids: context }
    }
}

/// GPT-2's tokenizer from its published files: byte-level BPE.
fn gpt2(vocab: &Path, merges: &Path) -> tokenizers::Result<HfTokenizer> {
    let model = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    add_special(&mut tokenizer, "<|endoftext|>")?;
    Ok(tokenizer)
}

/// GPT-1's: lower-case words whose last piece ends in `</w>`.
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

/// Makes a token of the vocabulary one that texts may name.
fn add_special(tokenizer: &mut HfTokenizer, token: &str) -> tokenizers::Result<()> {
    if tokenizer.token_to_id(token).is_some() {
        tokenizer.add_special_tokens([AddedToken::from(token, true)])?;
    }
    Ok(())
}

/// Ids in, whole characters out.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Where the text last given out begins, and ends, among the ids: the former is decoded again as context.
    from: usize,
    read: usize,
}

impl TextStream<'_> {
    /// Takes in an id; the text that it completes.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        // Whether a run of byte tokens is text shows only at its end: one wrong byte makes all of them U+FFFD.
        if self.tokenizer.is_byte(id) {
            return String::new();
        }
        let text = self.pending();
        // A character that ends in the middle decodes as U+FFFD: wait for the rest of it.
        if text.is_empty() || text.ends_with('\u{FFFD}') {
            return String::new();
        }
        self.from = self.read;
        self.read = self.ids.len();
        text
    }

    /// What is left when no more ids come.
    pub fn finish(&self) -> String {
        self.pending()
    }

    fn pending(&self) -> String {
        let before = self.tokenizer.decode(&self.ids[self.from..self.read], true);
        let all = self.tokenizer.decode(&self.ids[self.from..], true);
        all.strip_prefix(&before).map_or_else(|| all[common(&all, &before)..].to_owned(), str::to_owned)
    }
}

/// Bytes of the longest common beginning, in whole characters.
fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}
