//! Text → token ids and back, through the `tokenizers` crate, and a stream of text that never splits a
//! character.

mod added;
mod bytes;
mod classes;
mod gguf;
mod panics;
mod sentence_piece;
mod settings;
mod stream;
mod vocab_merges;

pub use gguf::{ends as gguf_ends, role as gguf_role, write as write_gguf};
pub use settings::Settings;
pub use stream::TextStream;

use crate::{
    error::{Error, Result},
    files,
};
use std::{collections::BTreeSet, fmt, path::Path};
use tokenizers::Tokenizer as HfTokenizer;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: HfTokenizer,
    /// What error messages call it.
    name: String,
    /// Whether texts lose the blanks before punctuation.
    cleans_up: bool,
    /// Tokens that stand for no text, whatever their spelling is.
    silent: BTreeSet<u32>,
}

impl Tokenizer {
    /// Opens a folder's tokenizer.json, or its vocab.json and merges.txt, or its tokenizer.model, which are
    /// read as the settings' class defines them (the last also without one), and adds the tokens that the
    /// settings name.
    ///
    /// # Errors
    /// Of the kind Model where a file is missing, damaged or not supported.
    pub fn open(folder: &Path, settings: &Settings) -> Result<Self> {
        let [json, vocab, merges, pieces] =
            ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"].map(|name| folder.join(name));
        let is_json = json.is_file();
        let mut tokenizer = if is_json {
            Self::from_json(&json.display().to_string(), files::read_json_text(&json)?.as_bytes())?
        } else if vocab.is_file() && merges.is_file() {
            vocab_merges::read(&vocab, &merges, settings)?
        } else if pieces.is_file() {
            sentence_piece::read(&pieces, settings)?
        } else {
            return Err(Error::model(format!(
                "{} holds no tokenizer.json, no vocab.json with merges.txt, and no tokenizer.model: fetch \
                 the model's tokenizer.json",
                folder.display()
            )));
        };
        // A tokenizer.json has its own start and end tokens.
        let added = tokenizer.add(settings);
        let set_up = added.and_then(|()| match is_json {
            true => tokenizer.obey_class(settings),
            false => tokenizer.put_ends(settings),
        });
        set_up.map_err(|e| {
            Error::model(format!("{}: its tokenizer cannot be set up: {e}", folder.display())).because(e)
        })?;
        match tokenizer.vocab_size() {
            0 => Err(Error::model(format!("{}: its tokenizer gives no text an id", folder.display()))),
            _ => Ok(tokenizer),
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
        Ok(Self { inner: tokenizer, name: name.to_owned(), cleans_up: false, silent: BTreeSet::new() })
    }

    /// A text's token ids. Special tokens that the text spells out become their ids. `add_special` adds the
    /// special tokens that the tokenizer puts around every text.
    ///
    /// # Errors
    /// Of the kind Request where the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let failed = |why: &dyn fmt::Display| {
            Error::request(format!(
                "{} cannot turn this text into tokens ({why}): leave out its rare characters, or fetch the \
                 tokenizer again",
                self.name
            ))
        };
        let encoding = panics::caught(|| self.inner.encode_fast(text, add_special));
        match encoding.map_err(|panic| failed(&panic))? {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(failed(&e).because(e)),
        }
    }

    /// The text of token ids. Special tokens are spelt out, or left out with `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let shown: Vec<_> = ids.iter().copied().filter(|id| !self.silent.contains(id)).collect();
        let text = self.inner.decode(&shown, skip_special).unwrap_or_default();
        if self.cleans_up { clean_up(text) } else { text }
    }

    /// Whether an id is a special token, which stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// Whether an id is a token that is matched before a text is split into words: a special token, or one
    /// that was added to the vocabulary.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// The id of a token that is spelt so.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The byte that a token stands for (`<0x0A>` for 10), in a tokenizer that spells rare characters as
    /// bytes: SentencePiece's byte fallback.
    fn byte(&self, id: u32) -> Option<u8> {
        let token = self.inner.id_to_token(id)?;
        let byte = u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()?;
        // Elsewhere such a token may be an ordinary text.
        let is_fallback = token.len() == 6 && !self.decode(&[id], false).contains("0x");
        is_fallback.then_some(byte)
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
        self.inner.get_vocab_size(true)
    }
}

/// The text without the blanks that WordPiece leaves before punctuation, as transformers'
/// `clean_up_tokenization` removes them.
fn clean_up(text: String) -> String {
    const ENDS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    ENDS.iter().fold(text, |text, (from, to)| text.replace(from, to))
}
